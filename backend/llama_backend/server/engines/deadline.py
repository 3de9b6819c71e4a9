"""How long a request may take from its arrival: the shortest of the times in its body, its header and the settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import isfinite

from starlette.requests import Request

from llama_backend.errors import DeadlineExceeded, InvalidRequest
from llama_backend.server.engines.pending import PendingRequest
from llama_backend.wire.headers import REQUEST_TIMEOUT


class Deadline:
    """When a request must be complete: `seconds` from now; None means no limit."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else asyncio.get_running_loop().time() + seconds

    @property
    def error(self) -> DeadlineExceeded:
        text = f"the request was not complete within {self._seconds:g} s; allow more time or ask for less"
        return DeadlineExceeded(text, timeout=self._seconds)

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Raises DeadlineExceeded in the block when the time is over; the block must run in one task."""
        try:
            async with asyncio.timeout_at(self._end):
                yield
        except TimeoutError as error:
            raise self.error from error

    @contextmanager
    def watching(self, pending: PendingRequest) -> Iterator[None]:
        """Stops a request when the time is over, whichever task reads it."""
        if self._end is None:
            yield
            return
        timer = asyncio.get_running_loop().call_at(self._end, pending.stop, self.error)
        try:
            yield
        finally:
            timer.cancel()


def deadline_of(request: Request, wanted: float | None, limit: float | None) -> Deadline:
    """The shortest of the times that the body and the header ask for and that the server allows.

    Raises InvalidRequest where the header is not a time.
    """
    times = [seconds for seconds in (wanted, _header(request), limit) if seconds is not None]
    return Deadline(min(times, default=None))


def _header(request: Request) -> float | None:
    text = request.headers.get(REQUEST_TIMEOUT)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and seconds > 0):
        raise InvalidRequest(
            f"{REQUEST_TIMEOUT}: give a number of seconds above 0, not {text!r}", param=REQUEST_TIMEOUT
        )
    return seconds
