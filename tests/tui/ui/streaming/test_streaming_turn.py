"""One turn from the backend to a sink."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from llama_backend.errors import BackendError, EngineDied
from llama_backend.wire.api import SamplingParams
from llama_chat.history import History
from llama_chat.turn import Turn
from llama_chat.ui.streaming.streaming_turn import Exchange
from tests.support.ui.scripted_backend import ScriptedBackend
from tests.support.wait import until_async


class Sink:
    """Keeps what it is shown."""

    def __init__(self) -> None:
        self.text = ""
        self.waits: list[str] = []
        self.end: tuple[str | None, str | None] | None = None

    def append(self, text: str) -> None:
        self.text += text

    def wait(self, reason: str) -> None:
        self.waits.append(reason)

    def finish(self, finish_reason: str | None, error: str | None = None) -> None:
        self.end = (finish_reason, error)


class Fixture:
    """An exchange with all that is around it."""

    def __init__(self, script: Sequence[str | BackendError], gate: asyncio.Event | None = None) -> None:
        self.sink = Sink()
        self.ended: list[Exchange] = []
        self.progress = 0
        self.backend = ScriptedBackend(answers=[script], gate=gate)
        turn = Turn(History(Path(":memory:")), None)
        self.exchange = Exchange("question", turn, self.sink, self._count, self.ended.append)

    def _count(self, _: Exchange) -> None:
        self.progress += 1

    def start(self) -> None:
        self.exchange.start(self.backend, SamplingParams())

    async def end(self) -> None:
        await until_async(lambda: self.ended)


async def test_all_text_arrives_and_the_end_is_told_once() -> None:
    test = Fixture(["a", "b", "c"])
    test.exchange.wait("loading")
    test.start()
    await test.end()
    assert test.sink.text == "abc"
    assert test.sink.waits == ["loading", ""]
    assert test.sink.end == ("stop", None)
    assert test.ended == [test.exchange]
    assert test.exchange.error is None


async def test_many_tokens_are_few_pieces() -> None:
    test = Fixture(["token "] * 2000)
    test.start()
    await test.end()
    assert test.sink.text == "token " * 2000
    assert test.exchange.rate.pieces == 2000
    assert test.progress < 30


async def test_nothing_is_awaited_any_more_once_text_has_come() -> None:
    test = Fixture(["a", "b"], gate=asyncio.Event())
    test.start()
    await until_async(lambda: test.sink.text)
    test.exchange.wait("restarting")
    assert "restarting" not in test.sink.waits
    await test.exchange.stop()


async def test_an_error_is_kept_beside_what_came() -> None:
    test = Fixture(["half", EngineDied("signal 9")])
    test.start()
    await test.end()
    assert test.sink.text == "half"
    assert test.sink.end == ("error", "signal 9")
    assert isinstance(test.exchange.error, EngineDied)


async def test_stopping_returns_when_all_is_kept() -> None:
    test = Fixture(["half", "whole"], gate=asyncio.Event())
    test.start()
    await until_async(lambda: test.backend.delivered)
    await test.exchange.stop()
    assert test.sink.text == "half"
    assert test.sink.end == ("cancelled", None)
    assert test.backend.stopped == 1
    assert test.ended == [test.exchange]


async def test_stopping_before_the_first_step_asks_nothing() -> None:
    for is_started in (False, True):
        test = Fixture(["never"])
        if is_started:
            test.start()
        await test.exchange.stop()
        assert test.sink.end == ("cancelled", None)
        assert test.ended == [test.exchange]
        assert test.backend.requests == []
