"""The numbered events of one answer, kept for a client that reconnects after a break."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from itertools import islice

from llama_backend.errors import BackendError, NotFound
from llama_backend.server.streaming.events import Events
from llama_backend.server.streaming.sse import error_event

KEPT_BYTES = 1 << 20
"""Bytes of sent events that are kept of one answer. As many may be unsent; then the answer waits for a reader."""
_END = b"\n\n"


class AnswerStream:
    """Takes the events of an answer as they come, also while nobody reads them."""

    def __init__(self, events: Events, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._kept: deque[bytes] = deque()
        self._first = 1
        """The number of the oldest kept event."""
        self._bytes_sent = 0
        """Bytes of those kept events that were sent."""
        self._bytes_unsent = 0
        self._sent = 0
        """The number of the last event that was sent to a reader."""
        self._error: BackendError | None = None
        self._finished = False
        self._news = asyncio.Event()
        """Set and replaced when there is something new to read."""
        self._has_room = asyncio.Event()
        self.readers = 0
        self._writing = asyncio.create_task(self._write(events), name="answer")

    @property
    def _last(self) -> int:
        return self._first + len(self._kept) - 1

    @property
    def was_refused(self) -> bool:
        """Whether the request ended before there was any event."""
        return self._finished and self._last == 0

    @property
    def is_read(self) -> bool:
        """Whether the answer has ended and all of its events have been sent."""
        return self._finished and self._sent >= self._last

    def check(self, after: int) -> None:
        """Raises NotFound where the events after number `after` are no longer kept or never existed."""
        if not self._first - 1 <= after <= self._last:
            raise NotFound(f"the events after number {after} of this answer are not kept; send the request again")

    async def read(self, after: int) -> AsyncGenerator[bytes, None]:
        """The events after number `after`, as they come. Raises as `check`, and the error of a refused request."""
        at = after + 1
        self.readers += 1
        try:
            while not (self._finished and at == self._last + 1):
                news = self._news
                for event in self._from(at):
                    self._note_sent(at, len(event))
                    yield b"id: %d\n%s" % (at, event)
                    at += 1
                if news is self._news and not self._finished:
                    await news.wait()
            if self._error is not None:
                raise self._error
        finally:
            self.readers -= 1

    async def stop(self) -> None:
        """Ends the answer after its present event, and cancels the engine's work on it."""
        self._writing.cancel()
        with suppress(asyncio.CancelledError):
            await self._writing

    def _from(self, number: int) -> list[bytes]:
        self.check(number - 1)
        return list(islice(self._kept, number - self._first, None))

    async def _write(self, events: Events) -> None:
        try:
            async with aclosing(events):
                async for parts in events:
                    await self._make_room()
                    self._append(parts)
        except BackendError as error:
            self._fail(error)
        except asyncio.CancelledError:
            self._fail(NotFound("the answer was stopped"))
            raise
        finally:
            self._finished = True
            self._wake()

    def _append(self, parts: bytes) -> None:
        """Gives each event its own number, since a connection can break between two that were written together."""
        events = [event + _END for event in parts.split(_END) if event]
        self._kept.extend(events)
        self._bytes_unsent += sum(map(len, events))
        self._wake()

    def _fail(self, error: BackendError) -> None:
        """Makes an error the last event; where it would be the only event, it is raised to readers instead."""
        if self._last:
            self._append(error_event(error.to_wire()))
        else:
            self._error = error

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _note_sent(self, number: int, size: int) -> None:
        """Notes that an event was sent, and drops the oldest sent events where too many bytes are kept."""
        if number <= self._sent:
            return
        self._sent = number
        self._bytes_sent += size
        self._bytes_unsent -= size
        while self._bytes_sent > self._kept_bytes:
            self._bytes_sent -= len(self._kept.popleft())
            self._first += 1
        self._has_room.set()

    async def _make_room(self) -> None:
        while self._bytes_unsent > self._kept_bytes:
            self._has_room.clear()
            await self._has_room.wait()
