"""The response that sends a stream of events, with heartbeats in between, until the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Self

from starlette.types import Receive, Scope, Send

from llama_backend.errors import BackendError
from llama_backend.server.streaming.sse import HEARTBEAT, error_event
from llama_backend.wire.headers import RESUMABLE

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

Events = AsyncGenerator[bytes, None]


class EventStream:
    """The ASGI response that sends the events of a generator, and closes the generator when the client disconnects.

    `first` is the generator's first event, which may still be missing. A BackendError becomes the last event. `grace`
    is for how many seconds the answer can be resumed, which a header says; None where it cannot.
    """

    def __init__(
        self, events: Events, first: asyncio.Future[bytes], heartbeat: float, grace: float | None = None
    ) -> None:
        self._events = events
        self._first = first
        self._heartbeat = heartbeat
        self._headers = [*_HEADERS, (RESUMABLE.lower().encode(), b"%d" % grace)] if grace is not None else _HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.create_task(self._write(send))
        watcher = asyncio.create_task(gone(receive))
        try:
            await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _end(writer, watcher, self._first)
            await self._events.aclose()
        if not writer.cancelled() and (error := writer.exception()) is not None:
            raise error

    async def _write(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        async with Heartbeat(send, self._heartbeat) as body:
            try:
                await body.send(await self._first)
                async for event in self._events:
                    await body.send(event)
            except BackendError as error:
                await body.send(error_event(error.to_wire()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Heartbeat:
    """Sends the parts of a body, and a comment whenever nothing else was sent for `seconds`."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._time = asyncio.get_running_loop().time
        self._last = self._time()

    async def __aenter__(self) -> Self:
        self._comments = asyncio.create_task(self._send_comments())
        return self

    async def __aexit__(self, *_: object) -> None:
        await _end(self._comments)

    async def send(self, part: bytes) -> None:
        self._last = self._time()
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _send_comments(self) -> None:
        while True:
            left = self._last + self._seconds - self._time()
            if left <= 0:
                await self.send(HEARTBEAT)
            else:
                await asyncio.sleep(left)


async def gone(receive: Receive) -> None:
    """Returns when the client has disconnected."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
