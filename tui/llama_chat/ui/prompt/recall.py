"""Earlier prompts, for the arrow keys."""

from __future__ import annotations


class PromptRecall:
    """Steps through earlier prompts; the draft comes after the newest one and is never lost."""

    def __init__(self) -> None:
        self._prompts: list[str] = []
        self._position = 0
        self._draft = ""

    def add(self, prompt: str) -> None:
        """Adds a prompt that was sent or cleared, and returns to the draft."""
        if prompt.strip() and (not self._prompts or self._prompts[-1] != prompt):
            self._prompts.append(prompt)
        self._position = len(self._prompts)
        self._draft = ""

    def replace(self, prompts: list[str]) -> None:
        """Takes the prompts of another conversation."""
        self._prompts = list(prompts)
        self._position = len(self._prompts)
        self._draft = ""

    def older(self, text: str) -> str | None:
        """The prompt before the one shown, or None where there is none; `text` is the present text of the box."""
        if self._position == 0:
            return None
        self._keep(text)
        self._position -= 1
        return self._prompts[self._position]

    def newer(self, text: str) -> str | None:
        """The prompt after the one shown, or the draft after the newest one; None where the draft is shown."""
        if self._position == len(self._prompts):
            return None
        self._keep(text)
        self._position += 1
        return self._draft if self._position == len(self._prompts) else self._prompts[self._position]

    def _keep(self, text: str) -> None:
        """Keeps the draft, or the changes to a recalled prompt."""
        if self._position == len(self._prompts):
            self._draft = text
        else:
            self._prompts[self._position] = text
