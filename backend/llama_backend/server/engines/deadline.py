"""How long a request may take: what its body, its header and the server allow, from its arrival on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from math import isfinite

from starlette.requests import Request

from llama_backend.errors import DeadlineExceeded, InvalidRequest
from llama_backend.server.engines.pending import Ticket

HEADER = "X-Request-Timeout"


class Deadline:
    """The end of a request's time; `seconds` are counted from now on, None is no end."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._end = None if seconds is None else asyncio.get_running_loop().time() + seconds

    @property
    def error(self) -> DeadlineExceeded:
        return DeadlineExceeded(f"the request was not complete within {self._seconds:g} s", timeout=self._seconds)

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Ends the block with DeadlineExceeded when the time is over; for a block within one task."""
        try:
            async with asyncio.timeout_at(self._end):
                yield
        except TimeoutError as error:
            raise self.error from error

    @contextmanager
    def watching(self, ticket: Ticket) -> Iterator[None]:
        """Stops a ticket when the time is over, whichever task reads it."""
        if self._end is None:
            yield
            return
        timer = asyncio.get_running_loop().call_at(self._end, ticket.stop, self.error)
        try:
            yield
        finally:
            timer.cancel()


def deadline_of(request: Request, wanted: float | None, limit: float | None) -> Deadline:
    """The shortest of what a body wants, the header says and the server allows; raises InvalidRequest."""
    times = [seconds for seconds in (wanted, _header(request), limit) if seconds is not None]
    return Deadline(min(times, default=None))


def _header(request: Request) -> float | None:
    text = request.headers.get(HEADER)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not (isfinite(seconds) and seconds > 0):
        raise InvalidRequest(f"{HEADER}: it is a number of seconds above 0, got {text!r}", param=HEADER)
    return seconds
