"""Server-sent events that end when the client goes away, with heartbeats while there is nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.types import Receive, Scope, Send

from llama_backend.errors import BackendError
from llama_backend.server.answers import HEARTBEAT, error_event

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

Events = AsyncGenerator[bytes, None]


class EventStream:
    """An ASGI answer of the events of a generator, which is closed when the client goes away.

    `first` is the generator's first event, which may still be on its way.
    """

    def __init__(self, events: Events, first: asyncio.Future[bytes], heartbeat: float) -> None:
        self._events = events
        self._first = first
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        writer = asyncio.create_task(self._write(send))
        watcher = asyncio.create_task(gone(receive))
        try:
            await asyncio.wait({writer, watcher}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writer, watcher):
                task.cancel()
            await asyncio.wait({writer, watcher})
        if not writer.cancelled() and (error := writer.exception()) is not None:
            raise error

    async def _write(self, send: Send) -> None:
        async with aclosing(with_heartbeat(self._events, self._first, self._heartbeat)) as events:
            async for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def gone(receive: Receive) -> None:
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def with_heartbeat(events: Events, first: asyncio.Future[bytes], seconds: float) -> Events:
    """The same events, a comment whenever none came for `seconds`, and an error as the last event."""
    async with aclosing(events):
        pending = first
        try:
            while True:
                await asyncio.wait({pending}, timeout=seconds)
                if not pending.done():
                    yield HEARTBEAT
                    continue
                yield pending.result()
                pending = asyncio.ensure_future(anext(events))
        except StopAsyncIteration:
            return
        except BackendError as error:
            yield error_event(error.to_wire())
        finally:
            pending.cancel()
            await asyncio.wait({pending})
