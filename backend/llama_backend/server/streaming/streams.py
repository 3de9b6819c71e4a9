"""Answers that outlive their connection: a client that asked for it takes up where it was.

Such a client names its answer in the header `X-Resumable`. The events then carry numbers (`id:`), the answer goes on
for a while when the connection breaks, and `GET /v1/streams/NAME` with `Last-Event-ID` gives the rest; the same request
sent again finds the same answer. `DELETE` there stops it. For everybody else a closed connection stops the work.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request

from llama_backend.errors import InvalidRequest, NotFound
from llama_backend.server.access.auth import bearer, is_unix
from llama_backend.server.streaming.answer_stream import AnswerStream
from llama_backend.server.streaming.events import Events

HEADER = "X-Resumable"
MOST_LEFT = 64
"""Answers that nobody reads; of whoever has most of them the one that was left first gives way, complete ones before
others."""
_NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")
_NUMBER = re.compile(r"\d{1,9}")

Key = tuple[bytes, str]
"""Whose answer it is, and its name: nobody finds those of others."""


class Streams:
    """The answers that can be taken up again; one without a reader ends after `grace` seconds."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._streams: dict[Key, AnswerStream] = {}
        self._left: dict[Key, asyncio.TimerHandle] = {}
        """Those that nobody reads, and when they end; the one that was left first is first."""
        self._stopping = set[asyncio.Task[None]]()
        self._changed = asyncio.Event()

    def open(self, key: Key, events: Events) -> Events:
        """The events of the answer with that key, from the first on; `events` is not begun where it is known."""
        if key not in self._streams:
            self._streams[key] = AnswerStream(events)
        return self._read(key, self._streams[key], 0)

    def resume(self, key: Key, after: int) -> Events:
        """The events after number `after`; raises NotFound where that owner has no such answer, or not those events."""
        stream = self._find(key)
        stream.check(after)
        return self._read(key, stream, after)

    async def stop(self, key: Key) -> None:
        """Ends an answer, and the work on it; raises NotFound."""
        self._find(key)
        await self._drop(key)

    async def told(self) -> None:
        """Returns when all answers have been read to their end, or given up."""
        while any(not stream.is_told for stream in self._streams.values()):
            self._changed.clear()
            await self._changed.wait()

    def _find(self, key: Key) -> AnswerStream:
        if key not in self._streams:
            raise NotFound("there is no such answer, or not any more")
        return self._streams[key]

    async def _read(self, key: Key, stream: AnswerStream, after: int) -> AsyncGenerator[bytes, None]:
        if timer := self._left.pop(key, None):
            timer.cancel()
        try:
            async with aclosing(stream.read(after)) as events:
                async for event in events:
                    yield event
        finally:
            self._leave(key, stream)

    def _leave(self, key: Key, stream: AnswerStream) -> None:
        """A reader has gone: what is complete may not have reached it."""
        self._changed.set()
        if stream.readers or self._streams.get(key) is not stream:
            return
        if stream.was_refused:
            del self._streams[key]
            return
        loop = asyncio.get_running_loop()
        self._left[key] = loop.call_later(self.grace, self._end, key)
        if len(self._left) > MOST_LEFT:
            self._end(self._least_needed())

    def _least_needed(self) -> Key:
        """The answer that gives way; nobody loses one for what others leave."""
        owners = Counter(owner for owner, _ in self._left)
        most = max(owners.values())
        left = [key for key in self._left if owners[key[0]] == most]
        return next((key for key in left if self._streams[key].is_told), left[0])

    def _end(self, key: Key) -> None:
        task = asyncio.create_task(self._drop(key))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _drop(self, key: Key) -> None:
        if timer := self._left.pop(key, None):
            timer.cancel()
        if stream := self._streams.pop(key, None):
            await stream.stop()
        self._changed.set()


def wanted(request: Request) -> Key | None:
    """The key of the answer that a request wants to be able to take up again; raises InvalidRequest."""
    name = request.headers.get(HEADER)
    if name is None:
        return None
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{HEADER}: 16 to 64 letters, digits, - and _, made at random", param=HEADER)
    return key_of(request, name)


def key_of(request: Request, name: str) -> Key:
    """A name as the client of a request has it."""
    owner = b"" if is_unix(request) else hashlib.sha256(bearer(request).encode()).digest()
    return owner, name


def last_event(request: Request) -> int:
    """The number of the last event that a client has, 0 for none; raises InvalidRequest."""
    text = request.headers.get("last-event-id", "0")
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest("Last-Event-ID: the number of an event", param="Last-Event-ID")
    return int(text)
