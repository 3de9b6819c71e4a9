from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import msgspec
import pytest
from starlette.types import Message

from llama_backend.errors import EngineDied
from llama_backend.server.answers import HEARTBEAT
from llama_backend.server.events import Events, EventStream, gone, with_heartbeat


class Source:
    """Events with pauses, and whether they were closed."""

    def __init__(self, *steps: float | bytes | Exception) -> None:
        self._steps = steps
        self.closed = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            for step in self._steps:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, Exception):
                    raise step
                else:
                    yield step
        finally:
            self.closed = True


def heartbeating(source: Source, seconds: float) -> Events:
    events = source.events()
    return with_heartbeat(events, asyncio.ensure_future(anext(events)), seconds)


async def test_quick_events_pass_without_heartbeats() -> None:
    source = Source(b"a", b"b")
    assert [event async for event in heartbeating(source, 1)] == [b"a", b"b"]
    assert source.closed


async def test_a_comment_comes_in_each_silence_also_before_the_first_event() -> None:
    events = [event async for event in heartbeating(Source(0.1, b"a", 0.1, b"b"), 0.03)]
    assert events[0] == HEARTBEAT
    assert events[-2] == HEARTBEAT
    assert [event for event in events if event != HEARTBEAT] == [b"a", b"b"]


async def test_an_error_is_the_last_event() -> None:
    source = Source(b"a", EngineDied("it is gone", retry_after=2))
    *events, last = [event async for event in heartbeating(source, 1)]
    assert events == [b"a"]
    error = msgspec.json.decode(last.removeprefix(b"data: "))["error"]
    assert (error["code"], error["message"], error["retry_after"]) == ("engine_died", "it is gone", 2)


async def test_an_unknown_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        [event async for event in heartbeating(Source(b"a", ZeroDivisionError()), 1)]


@pytest.mark.parametrize("taken", [1, 2])
async def test_closing_early_closes_the_source(taken: int) -> None:
    source = Source(b"a", 60.0, b"b")
    events = heartbeating(source, 0.01)
    for _ in range(taken):
        await anext(events)
    await events.aclose()
    assert source.closed


async def test_gone_waits_for_the_disconnect() -> None:
    messages: list[Message] = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    await asyncio.wait_for(gone(receive), 1)
    assert messages == []


async def test_a_stream_stops_its_source_when_the_client_goes_away() -> None:
    source, sent, left = Source(b"a", 60.0), list[Message](), asyncio.Event()

    async def receive() -> Message:
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)
        if message.get("body") == b"a":
            left.set()

    events = source.events()
    stream = EventStream(events, asyncio.ensure_future(anext(events)), 10)
    await asyncio.wait_for(stream({"type": "http"}, receive, send), 1)
    assert source.closed
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-cache"
