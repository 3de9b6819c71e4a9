"""Pauses between attempts to connect again."""

from __future__ import annotations

import asyncio
import random
from time import monotonic

_FIRST_SECONDS = 0.05
_LONGEST_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
"""After this long without success the last error is raised."""


class Backoff:
    """Exponential backoff with jitter: pauses double, and a random part keeps many clients from returning at once."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.patience = patience
        """Seconds."""
        self._attempts = 0
        self._since = 0.0

    @property
    def is_retrying(self) -> bool:
        """Whether there was a pause since the last success."""
        return self._attempts > 0

    def succeed(self) -> None:
        """Starts over: the next failure gets the whole patience again."""
        self._attempts = 0

    async def pause(self, error: Exception) -> None:
        """Waits before the next attempt; raises `error` when the patience is used up."""
        if not self._attempts:
            self._since = monotonic()
        left = self._since + self.patience - monotonic()
        if left <= 0:
            raise error
        longest = min(_FIRST_SECONDS * 2**self._attempts, _LONGEST_SECONDS)
        self._attempts += 1
        await asyncio.sleep(min(random.uniform(0.5, 1.0) * longest, left))
