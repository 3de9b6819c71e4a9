"""Makes text of tokens: only whole characters, and no part of a stop string."""

from __future__ import annotations

import codecs
from collections.abc import Callable


class Detokenizer:
    """The text of one answer, token by token."""

    def __init__(
        self, piece: Callable[[int], bytes], stops: list[str] | None = None, strip_space: bool = False
    ) -> None:
        self._piece = piece
        self._stops = stops or []
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._strip_space = strip_space
        self._held = ""
        self.stopped = False
        """Whether a stop string has come; it and the text after it are dropped."""
        self.parts: list[str] = []
        """The text that was returned so far."""

    @property
    def text(self) -> str:
        """All text that was returned so far."""
        return "".join(self.parts)

    def push(self, token: int) -> str:
        """The text that can be shown after `token`; it may be empty, or longer than the token."""
        return self._emit(self._decoder.decode(self._piece(token)))

    def flush(self) -> str:
        """The rest of the text at the end of an answer; half a character becomes U+FFFD."""
        if self.stopped:
            return ""
        text = self._emit(self._decoder.decode(b"", final=True))
        rest = "" if self.stopped else self._give(self._held)
        self._held = ""
        return text + rest

    def _emit(self, text: str) -> str:
        if self._strip_space and text:
            text, self._strip_space = text.removeprefix(" "), False
        if not self._stops:
            return self._give(text)
        self._held += text
        end = self._stop_at()
        if end is not None:
            self.stopped = True
            return self._give(self._held[:end])
        keep = self._possible_stop()
        ready, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return self._give(ready)

    def _give(self, text: str) -> str:
        if text:
            self.parts.append(text)
        return text

    def _stop_at(self) -> int | None:
        """The start of the stop string that ends first, however the text was cut into tokens."""
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        return min(found)[1] if found else None

    def _possible_stop(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        for size in range(min(self._longest - 1, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stops):
                return size
        return 0
