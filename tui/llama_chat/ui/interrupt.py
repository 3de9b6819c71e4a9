"""What Ctrl+C means, one rung after the other."""

from __future__ import annotations

from enum import Enum, auto

AGAIN_SECONDS = 3.0


class Rung(Enum):
    """What an interrupt does."""

    COPY = auto()
    CLEAR = auto()
    STOP = auto()
    ASK = auto()
    QUIT = auto()


class KeyLadder:
    """Copies a selection, else clears the draft, else stops the answer, else asks for a second press, which quits."""

    def __init__(self) -> None:
        self._asked_at: float | None = None

    def step(self, *, has_selection: bool, has_draft: bool, is_answering: bool, now: float) -> Rung:
        """The rung for an interrupt at `now` seconds of a monotonic clock."""
        asked_at, self._asked_at = self._asked_at, None
        if has_selection:
            return Rung.COPY
        if has_draft:
            return Rung.CLEAR
        if is_answering:
            return Rung.STOP
        if asked_at is not None and now - asked_at <= AGAIN_SECONDS:
            return Rung.QUIT
        self._asked_at = now
        return Rung.ASK
