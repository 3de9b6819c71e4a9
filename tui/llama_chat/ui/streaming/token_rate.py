"""How fast an answer arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_backend.wire.api import Delta

_LEAST_PIECES = 5
"""With fewer the rate is not known yet."""


class TokenRate:
    """Tokens per second: estimated from the pieces while they arrive, then as the backend measured it."""

    def __init__(self) -> None:
        self._began: float | None = None
        self.pieces = 0
        """Pieces of text so far; our backend mostly sends one token in each."""
        self.per_second: float | None = None

    def take(self, delta: Delta, now: float) -> None:
        """Counts a piece that arrived at `now` seconds of a monotonic clock."""
        if delta.text:
            self._count(now)
        if delta.timings and delta.timings.predicted_per_second:
            self.per_second = delta.timings.predicted_per_second

    def _count(self, now: float) -> None:
        self.pieces += 1
        if self._began is None:
            self._began = now
        elif self.pieces > _LEAST_PIECES and now > self._began:
            self.per_second = (self.pieces - 1) / (now - self._began)
