"""Log probabilities of the tokens of one answer, sent together with the text that the tokens made."""

from __future__ import annotations

from collections import deque

from llama_backend.wire.ipc import TokenLogprob


class LogprobTrail:
    """Holds entries back until the text of their tokens is sent, so that none reveals text after a stop string."""

    def __init__(self, top: int) -> None:
        self.top = top
        """Number of alternatives of each entry."""
        self._held: deque[tuple[int, TokenLogprob]] = deque()
        self._end = 0
        self._given = 0

    def add(self, entry: TokenLogprob) -> None:
        """Adds the entry of the next token."""
        self._held.append((self._end, entry))
        self._end += len(entry.token)

    def take(self, text: str, is_end: bool = False) -> list[TokenLogprob]:
        """The entries of tokens that begin in the text sent so far, which ends with `text`, without those taken before.

        With `is_end`, the end of an answer that no stop string cut off, tokens without text are included.
        """
        if self._given == 0 and text and self._strips_space(text):
            self._given = 1
        self._given += len(text.encode())
        taken = []
        while self._held and (is_end or self._held[0][0] < self._given):
            taken.append(self._held.popleft()[1])
        return taken

    def _strips_space(self, text: str) -> bool:
        return bool(self._held) and self._held[0][1].token.startswith(b" ") and not text.startswith(" ")
