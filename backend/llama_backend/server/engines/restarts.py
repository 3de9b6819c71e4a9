"""How soon another engine follows one that ended."""

from __future__ import annotations

_PAUSES = (0.0, 0.5, 2.0, 5.0, 10.0)
"""Seconds before the first, the second … engine after others that were of no use."""


class Restarts:
    """Counts engines that ended one after another without having been of use."""

    def __init__(self) -> None:
        self.in_a_row = 0

    def pause(self, was_of_use: bool) -> float | None:
        """Seconds until the next engine; None where there is to be none, until somebody asks for one."""
        if was_of_use:
            self.in_a_row = 0
            return 0.0
        self.in_a_row += 1
        return _PAUSES[self.in_a_row - 1] if self.in_a_row <= len(_PAUSES) else None
