"""Writes an answer to the screen in few pieces: drawing must not take the cores that compute the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LEAST_SECONDS = 0.08
"""Between two pieces: the eye cannot tell more than about a dozen pieces a second apart."""
MOST_SECONDS = 1.0
"""However slow drawing is, a piece is written after this time."""
SHARE = 0.15
"""The part of one core that showing an answer may take."""


class StreamPump:
    """Collects text and writes it when the pause since the last piece is long enough.

    The pause depends on the processor time that the thread has used since the last piece, layout and drawing included:
    at a share of 0.15, a piece that cost 30 ms is followed by a pause of 200 ms.
    """

    def __init__(
        self, write: Callable[[str], None], cpu_seconds: Callable[[], float] = time.thread_time, share: float = SHARE
    ) -> None:
        self._write = write
        self._cpu_seconds = cpu_seconds
        self._share = share
        self._pending: list[str] = []
        self._timer: asyncio.TimerHandle | None = None
        self._spent_at_flush: float | None = None
        self._due = 0.0

    def feed(self, text: str) -> None:
        """Takes a piece of text; the first is shown at once."""
        if not text:
            return
        self._pending.append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(self._due, self.flush)

    def flush(self) -> None:
        """Writes what was collected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        text, self._pending = "".join(self._pending), []
        self._due = asyncio.get_running_loop().time() + self._pause()
        self._write(text)

    def _pause(self) -> float:
        """Seconds until the next piece."""
        now = self._cpu_seconds()
        spent = 0.0 if self._spent_at_flush is None else now - self._spent_at_flush
        self._spent_at_flush = now
        return min(max(spent / self._share, LEAST_SECONDS), MOST_SECONDS)
