"""Earlier prompts, for the arrow keys."""

from __future__ import annotations


class PromptRecall:
    """Walks through earlier prompts; the draft that was there before comes last and is never lost."""

    def __init__(self) -> None:
        self._prompts: list[str] = []
        self._position = 0
        self._draft = ""

    def add(self, prompt: str) -> None:
        """Remembers a prompt that was sent or cleared, and ends the walk."""
        if prompt.strip() and (not self._prompts or self._prompts[-1] != prompt):
            self._prompts.append(prompt)
        self._position = len(self._prompts)
        self._draft = ""

    def replace(self, prompts: list[str]) -> None:
        """Begins with the prompts of another conversation."""
        self._prompts = list(prompts)
        self._position = len(self._prompts)
        self._draft = ""

    def older(self, text: str) -> str | None:
        """The prompt before the one shown, or None where there is none; `text` is what the box holds."""
        if self._position == 0:
            return None
        self._keep(text)
        self._position -= 1
        return self._prompts[self._position]

    def newer(self, text: str) -> str | None:
        """The prompt after the one shown, at last the draft, or None where the draft is shown."""
        if self._position == len(self._prompts):
            return None
        self._keep(text)
        self._position += 1
        return self._draft if self._position == len(self._prompts) else self._prompts[self._position]

    def _keep(self, text: str) -> None:
        """Keeps the draft, or what was changed in a recalled prompt."""
        if self._position == len(self._prompts):
            self._draft = text
        else:
            self._prompts[self._position] = text
