"""Pauses between tries to connect again."""

from __future__ import annotations

import asyncio
import random
from time import monotonic

_FIRST_SECONDS = 0.05
_LONGEST_SECONDS = 5.0
PATIENCE_SECONDS = 60.0
"""After this long without success the last error stands."""


class Backoff:
    """Ever longer pauses, with a random part so that many clients do not come back at the same moment."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.patience = patience
        """Seconds."""
        self._tries = 0
        self._since = 0.0

    @property
    def is_trying(self) -> bool:
        """Whether there was a pause since the last success."""
        return self._tries > 0

    def succeed(self) -> None:
        """Begins anew: what comes is another break, with as much patience."""
        self._tries = 0

    async def pause(self, error: Exception) -> None:
        """Waits; raises `error` where patience is at its end."""
        if not self._tries:
            self._since = monotonic()
        left = self._since + self.patience - monotonic()
        if left <= 0:
            raise error
        longest = min(_FIRST_SECONDS * 2**self._tries, _LONGEST_SECONDS)
        self._tries += 1
        await asyncio.sleep(min(random.uniform(0.5, 1.0) * longest, left))
