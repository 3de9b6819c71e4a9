"""The buffers of answers that can be taken up again: what they keep, and what they never keep."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest

from llama_backend.errors import InvalidRequest, NotFound
from llama_backend.server.streaming import streams
from llama_backend.server.streaming.answer_stream import AnswerStream
from llama_backend.server.streaming.events import Events
from llama_backend.server.streaming.streams import Streams

EVENT = b"data: " + b"x" * 92 + b"\n\n"


class Source:
    """Events without end, or as many as it is told; `given` counts them."""

    def __init__(self, count: int = 1_000_000) -> None:
        self._count = count
        self.given = 0
        self.is_closed = False

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            while self.given < self._count:
                self.given += 1
                yield EVENT
                await asyncio.sleep(0)
        finally:
            self.is_closed = True


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def take(events: Events, count: int) -> list[bytes]:
    async with aclosing(events):
        return [await anext(events) for _ in range(count)]


async def refused(before: Sequence[bytes] = ()) -> AsyncGenerator[bytes, None]:
    for event in before:
        yield event
    raise InvalidRequest("no")


async def test_what_nobody_reads_stops_at_the_limit() -> None:
    source = Source()
    stream = AnswerStream(source.events(), kept_bytes=1000)
    await settle()
    assert source.given == 1000 // len(EVENT) + 2
    await stream.stop()
    assert source.is_closed


async def test_what_was_sent_gives_way() -> None:
    source = Source()
    stream = AnswerStream(source.events(), kept_bytes=1000)
    assert (await take(stream.read(0), 30))[-1] == b"id: 30\n" + EVENT
    await settle()
    with pytest.raises(NotFound, match="not kept"):
        await take(stream.read(5), 1)
    assert (await take(stream.read(29), 1))[0] == b"id: 30\n" + EVENT
    await stream.stop()


async def test_events_that_were_written_together_are_numbered_one_by_one() -> None:
    async def two() -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\ndata: 2\n\n"

    stream = AnswerStream(two())
    assert [event async for event in stream.read(0)] == [b"id: 1\ndata: 1\n\n", b"id: 2\ndata: 2\n\n"]
    assert [event async for event in stream.read(1)] == [b"id: 2\ndata: 2\n\n"]


async def test_two_readers_get_the_same() -> None:
    stream = AnswerStream(Source(20).events())
    first, second = await asyncio.gather(take(stream.read(0), 20), take(stream.read(0), 20))
    assert first == second


async def test_a_stopped_answer_ends_its_readers() -> None:
    stream = AnswerStream(Source().events(), kept_bytes=500)
    reader = asyncio.create_task(take(stream.read(0), 1_000_000))
    await settle()
    await stream.stop()
    with pytest.raises((NotFound, StopAsyncIteration, RuntimeError)):
        await reader


async def test_a_refusal_is_raised_and_forgotten() -> None:
    kept = Streams(grace=60)
    with pytest.raises(InvalidRequest):
        await take(kept.open((b"", "name"), refused()), 1)
    with pytest.raises(NotFound):
        kept.resume((b"", "name"), 0)


async def test_those_that_were_left_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_UNREAD", 3)
    kept = Streams(grace=60)
    sources = [Source(5), Source(), Source(5), Source(), Source()]
    for number, source in enumerate(sources):
        await take(kept.open((b"", str(number)), source.events()), 5)
        await settle()
    assert [source.is_closed for source in sources] == [True, False, True, False, False]
    for number in (1, 3, 4):
        await kept.stop((b"", str(number)))
    assert all(source.is_closed for source in sources)
