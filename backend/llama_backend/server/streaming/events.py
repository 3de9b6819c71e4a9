"""Server-sent events that end when the client goes away, with heartbeats while there is nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, Self

from starlette.types import Receive, Scope, Send

from llama_backend.errors import BackendError
from llama_backend.server.streaming.sse import HEARTBEAT, error_event

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

Events = AsyncGenerator[bytes, None]


class EventStream:
    """An ASGI answer of the events of a generator, which is closed when the client goes away.

    `first` is the generator's first event, which may still be on its way. A BackendError becomes the last event. The
    client of an answer that can be taken up again is told for how many seconds (`grace`) that is so.
    """

    def __init__(
        self, events: Events, first: asyncio.Future[bytes], heartbeat: float, grace: float | None = None
    ) -> None:
        self._events = events
        self._first = first
        self._heartbeat = heartbeat
        self._headers = [*_HEADERS, (b"x-resumable", b"%d" % grace)] if grace is not None else _HEADERS

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
        async with Pulse(send, self._heartbeat) as pulse:
            try:
                await pulse.send(await self._first)
                async for event in self._events:
                    await pulse.send(event)
            except BackendError as error:
                await pulse.send(error_event(error.to_wire()))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Pulse:
    """Sends the parts of a body, and a comment whenever there was none for `seconds`."""

    def __init__(self, send: Send, seconds: float) -> None:
        self._send = send
        self._seconds = seconds
        self._time = asyncio.get_running_loop().time
        self._last = self._time()

    async def __aenter__(self) -> Self:
        self._beats = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        await _end(self._beats)

    async def send(self, part: bytes) -> None:
        self._last = self._time()
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _beat(self) -> None:
        while True:
            left = self._last + self._seconds - self._time()
            if left <= 0:
                await self.send(HEARTBEAT)
            else:
                await asyncio.sleep(left)


async def gone(receive: Receive) -> None:
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
