"""When the next engine is started after one has ended."""

from __future__ import annotations

from time import monotonic

PAUSES = (0.0, 0.5, 2.0, 5.0, 10.0)
"""Seconds before the restart, after one, two … engines in a row that did no useful work."""
_STABLE_SECONDS = 10.0
"""An engine that ran for longer than this was useful even if it got no request."""


class Restarts:
    """Counts the restarts of one model's engine, and delays them where engines die without having done useful work."""

    def __init__(self) -> None:
        self.total = 0
        """Engines that died and were followed by another."""
        self.useless_in_a_row = 0
        """Engines that died one after another without having done useful work."""
        self._was_useful = False
        self._started_at = monotonic()

    def engine_started(self) -> None:
        self._was_useful, self._started_at = False, monotonic()

    def note_use(self) -> None:
        """Notes that the present engine has worked on a request."""
        self._was_useful = True

    def pause(self, was_ready: bool) -> float | None:
        """Seconds until the next engine; None where the next one is only started for a new request."""
        is_stable = was_ready and monotonic() - self._started_at > _STABLE_SECONDS
        self.useless_in_a_row = 0 if self._was_useful or is_stable else self.useless_in_a_row + 1
        if self.useless_in_a_row > len(PAUSES):
            return None
        self.total += 1
        return PAUSES[self.useless_in_a_row - 1] if self.useless_in_a_row else 0.0
