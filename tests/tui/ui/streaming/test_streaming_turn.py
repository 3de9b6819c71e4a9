"""One turn from the backend to a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from llama_backend.errors import BackendError, EngineDied
from llama_backend.wire.api import SamplingParams
from llama_chat.history import History
from llama_chat.turn import Turn
from llama_chat.ui.streaming.streaming_turn import StreamingTurn
from tests.support.ui.scripted_backend import ScriptedBackend
from tests.support.ui.sink import Sink
from tests.support.wait import until_async


class Fixture:
    """A streaming turn with all that is around it."""

    def __init__(self, script: Sequence[str | BackendError], gate: asyncio.Event | None = None) -> None:
        self.sink = Sink()
        self.ended: list[StreamingTurn] = []
        self.progress = 0
        self.backend = ScriptedBackend(answers=[script], gate=gate)
        self.turn = StreamingTurn(
            "question", Turn(History(Path(":memory:")), None), self.sink, self._count, self.ended.append
        )

    def _count(self, _: StreamingTurn) -> None:
        self.progress += 1

    def start(self) -> None:
        self.turn.start(self.backend, SamplingParams())

    async def end(self) -> None:
        await until_async(lambda: self.ended)


async def test_all_text_arrives_and_the_end_is_told_once() -> None:
    test = Fixture(["a", "b", "c"])
    test.turn.wait("loading")
    test.start()
    await test.end()
    assert test.sink.text == "abc"
    assert test.sink.waits == ["loading", ""]
    assert test.sink.end == ("stop", None)
    assert test.ended == [test.turn]
    assert test.turn.error is None


async def test_many_tokens_are_few_pieces() -> None:
    test = Fixture(["token "] * 2000)
    test.start()
    await test.end()
    assert test.sink.text == "token " * 2000
    assert test.turn.rate.pieces == 2000
    assert test.progress < 30


async def test_nothing_is_awaited_any_more_once_text_has_come() -> None:
    test = Fixture(["a", "b"], gate=asyncio.Event())
    test.start()
    await until_async(lambda: test.sink.text)
    test.turn.wait("restarting")
    assert "restarting" not in test.sink.waits
    await test.turn.stop()


async def test_an_error_is_kept_beside_what_came() -> None:
    test = Fixture(["half", EngineDied("signal 9")])
    test.start()
    await test.end()
    assert test.sink.text == "half"
    assert test.sink.end == ("error", "signal 9")
    assert isinstance(test.turn.error, EngineDied)


async def test_stopping_returns_when_all_is_kept() -> None:
    test = Fixture(["half", "whole"], gate=asyncio.Event())
    test.start()
    await until_async(lambda: test.backend.delivered)
    await test.turn.stop()
    assert test.sink.text == "half"
    assert test.sink.end == ("cancelled", None)
    assert test.backend.stopped == 1
    assert test.ended == [test.turn]


async def test_stopping_before_the_first_step_asks_nothing() -> None:
    for is_started in (False, True):
        test = Fixture(["never"])
        if is_started:
            test.start()
        await test.turn.stop()
        assert test.sink.end == ("cancelled", None)
        assert test.ended == [test.turn]
        assert test.backend.requests == []
