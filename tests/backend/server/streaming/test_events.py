from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Self

import msgspec
import pytest
from starlette.types import Message

from llama_backend.errors import EngineDied
from llama_backend.server.streaming.events import EventStream, gone
from llama_backend.server.streaming.sse import HEARTBEAT


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


class Line:
    """A connection: what was sent on it, and whether the client has gone."""

    def __init__(self, leave_at: bytes | None = None) -> None:
        self.sent: list[Message] = []
        self._leave_at = leave_at
        self._left = asyncio.Event()

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if self._leave_at is not None and message.get("body") == self._leave_at:
            self._left.set()

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.sent[1:]]

    async def carry(self, source: Source, heartbeat: float) -> Self:
        events = source.events()
        stream = EventStream(events, asyncio.ensure_future(anext(events)), heartbeat)
        await asyncio.wait_for(stream({"type": "http"}, self.receive, self.send), 5)
        return self


async def test_quick_events_pass_without_heartbeats() -> None:
    source = Source(b"a", b"b")
    line = await Line().carry(source, 1)
    assert line.bodies == [b"a", b"b", b""]
    assert [message.get("more_body") for message in line.sent] == [None, True, True, False]
    assert source.closed


async def test_a_comment_comes_in_each_silence_also_before_the_first_event() -> None:
    bodies = (await Line().carry(Source(0.1, b"a", 0.1, b"b"), 0.03)).bodies
    assert bodies[0] == HEARTBEAT
    assert bodies[-3] == HEARTBEAT
    assert [body for body in bodies if body != HEARTBEAT] == [b"a", b"b", b""]


async def test_no_comment_comes_while_there_are_events() -> None:
    steps = [step for index in range(20) for step in (0.02, b"%d" % index)]
    assert HEARTBEAT not in (await Line().carry(Source(*steps), 0.2)).bodies


async def test_an_error_is_the_last_event() -> None:
    source = Source(b"a", EngineDied("it is gone", retry_after=2))
    *events, last, end = (await Line().carry(source, 1)).bodies
    assert (events, end) == ([b"a"], b"")
    error = msgspec.json.decode(last.removeprefix(b"data: "))["error"]
    assert (error["code"], error["message"], error["retry_after"]) == ("engine_died", "it is gone", 2)


async def test_an_unknown_error_is_not_hidden() -> None:
    source = Source(b"a", ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        await Line().carry(source, 1)
    assert source.closed


@pytest.mark.parametrize("leave_at", [b"a", HEARTBEAT])
async def test_a_stream_stops_its_source_when_the_client_goes_away(leave_at: bytes) -> None:
    source = Source(b"a", 60.0, b"b")
    line = await Line(leave_at).carry(source, 0.05)
    assert source.closed
    assert line.bodies[-1] == leave_at
    headers = dict(line.sent[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert headers[b"cache-control"] == b"no-cache"


async def test_a_client_that_goes_before_the_first_event_stops_the_source() -> None:
    source = Source(60.0, b"a")
    line = await Line(HEARTBEAT).carry(source, 0.05)
    assert source.closed
    assert line.bodies == [HEARTBEAT]


async def test_gone_waits_for_the_disconnect() -> None:
    messages: list[Message] = [{"type": "http.request"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return messages.pop(0)

    await asyncio.wait_for(gone(receive), 1)
    assert messages == []
