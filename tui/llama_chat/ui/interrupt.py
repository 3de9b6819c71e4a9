"""What Ctrl+C does: it depends on what there is to copy, to clear or to stop."""

from __future__ import annotations

from enum import Enum, auto

AGAIN_SECONDS = 3.0
"""Time within which a second press quits."""


class InterruptAction(Enum):
    """What one press of Ctrl+C does."""

    COPY = auto()
    CLEAR = auto()
    STOP = auto()
    CONFIRM = auto()
    """Says that another press quits."""
    QUIT = auto()


class InterruptKey:
    """Chooses the action: copy a selection, else clear the draft, else stop the answer, else quit on a second press."""

    def __init__(self) -> None:
        self._confirming_since: float | None = None

    def press(self, *, has_selection: bool, has_draft: bool, is_answering: bool, now: float) -> InterruptAction:
        """The action for a press at `now` seconds of a monotonic clock."""
        since, self._confirming_since = self._confirming_since, None
        if has_selection:
            return InterruptAction.COPY
        if has_draft:
            return InterruptAction.CLEAR
        if is_answering:
            return InterruptAction.STOP
        if since is not None and now - since <= AGAIN_SECONDS:
            return InterruptAction.QUIT
        self._confirming_since = now
        return InterruptAction.CONFIRM
