"""Answers that outlive their connection, so that clients can resume a stream after a break.

The client names its answer in the header `X-Resumable`. Then the events have numbers (`id:`), the answer continues for
a while when the connection breaks, and `GET /v1/streams/NAME` with `Last-Event-ID` sends the rest; the same request
sent again gets the same answer. `DELETE /v1/streams/NAME` stops it. Without the header, closing the connection stops
the work.
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
from llama_backend.wire.headers import LAST_EVENT_ID, RESUMABLE

MOST_UNREAD = 64
"""Most answers that are kept without a reader. Beyond that, the client that has most of them loses one: the oldest of
those that were read to their end, or else the oldest."""
_NAME = re.compile(r"[A-Za-z0-9_-]{16,64}")
_NUMBER = re.compile(r"\d{1,9}")

Key = tuple[bytes, str]
"""The owner of an answer and its name, so that no client finds the answers of others."""


class Streams:
    """The answers that can be resumed; one without a reader is ended after `grace` seconds."""

    def __init__(self, grace: float) -> None:
        self.grace = grace
        self._streams: dict[Key, AnswerStream] = {}
        self._unread: dict[Key, asyncio.TimerHandle] = {}
        """Answers without a reader, with the timers that end them, in the order in which they lost their readers."""
        self._stopping = set[asyncio.Task[None]]()
        self._changed = asyncio.Event()

    def open(self, key: Key, events: Events) -> Events:
        """The events of the answer with that key, from the first on; `events` are ignored where the key is known."""
        if key not in self._streams:
            self._streams[key] = AnswerStream(events)
        return self._read(key, self._streams[key], 0)

    def resume(self, key: Key, after: int) -> Events:
        """The events after number `after`; raises NotFound where the owner has no such answer, or not those events."""
        stream = self._find(key)
        stream.check(after)
        return self._read(key, stream, after)

    async def stop(self, key: Key) -> None:
        """Ends an answer, and the work on it; raises NotFound."""
        self._find(key)
        await self._drop(key)

    async def all_read(self) -> None:
        """Returns when all answers have been read to their end or dropped."""
        while any(not stream.is_read for stream in self._streams.values()):
            self._changed.clear()
            await self._changed.wait()

    def _find(self, key: Key) -> AnswerStream:
        if key not in self._streams:
            raise NotFound("there is no such answer, or it is no longer kept; send the request again")
        return self._streams[key]

    async def _read(self, key: Key, stream: AnswerStream, after: int) -> AsyncGenerator[bytes, None]:
        if timer := self._unread.pop(key, None):
            timer.cancel()
        try:
            async with aclosing(stream.read(after)) as events:
                async for event in events:
                    yield event
        finally:
            self._leave(key, stream)

    def _leave(self, key: Key, stream: AnswerStream) -> None:
        """Handles the end of a reader. It may have missed the last events, so the answer is kept for a while."""
        self._changed.set()
        if stream.readers or self._streams.get(key) is not stream:
            return
        if stream.was_refused:
            del self._streams[key]
            return
        loop = asyncio.get_running_loop()
        self._unread[key] = loop.call_later(self.grace, self._end, key)
        if len(self._unread) > MOST_UNREAD:
            self._end(self._excess())

    def _excess(self) -> Key:
        """The answer to end, see MOST_UNREAD. So no client loses an answer because others leave many unread."""
        owners = Counter(owner for owner, _ in self._unread)
        most = max(owners.values())
        keys = [key for key in self._unread if owners[key[0]] == most]
        return next((key for key in keys if self._streams[key].is_read), keys[0])

    def _end(self, key: Key) -> None:
        task = asyncio.create_task(self._drop(key))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _drop(self, key: Key) -> None:
        if timer := self._unread.pop(key, None):
            timer.cancel()
        if stream := self._streams.pop(key, None):
            await stream.stop()
        self._changed.set()


def wanted_key(request: Request) -> Key | None:
    """The key of the answer if the client wants it to be resumable, or None.

    Raises InvalidRequest for a name that others might guess.
    """
    name = request.headers.get(RESUMABLE)
    if name is None:
        return None
    if not _NAME.fullmatch(name):
        raise InvalidRequest(f"{RESUMABLE}: give 16 to 64 random letters, digits, - and _", param=RESUMABLE)
    return key_of(request, name)


def key_of(request: Request, name: str) -> Key:
    """The key of the answer with that name that belongs to the client of a request."""
    owner = b"" if is_unix(request) else hashlib.sha256(bearer(request).encode()).digest()
    return owner, name


def last_event(request: Request) -> int:
    """The number of the last event that the client has, 0 for none; raises InvalidRequest."""
    text = request.headers.get(LAST_EVENT_ID, "0")
    if not _NUMBER.fullmatch(text):
        raise InvalidRequest(f"{LAST_EVENT_ID}: give the number of an event, of at most 9 digits", param=LAST_EVENT_ID)
    return int(text)
