"""A chat without its widgets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llama_backend.errors import PromptTooLong
from llama_chat.history import History
from llama_chat.ui.backend_state import BackendState
from llama_chat.ui.chat_options import ChatOptions
from llama_chat.ui.chat_session import ChatSession
from llama_chat.ui.context_meter import Reading
from llama_chat.ui.streaming.streaming_turn import StreamingTurn
from tests.support.ui.scripted_backend import CONTEXT, ScriptedBackend
from tests.support.ui.sink import Sink
from tests.support.wait import until_async


class Display:
    """Keeps what a status line would show."""

    def __init__(self) -> None:
        self.state = BackendState()
        self.reading = Reading()
        self.rate: float | None = None
        self.answering: list[bool] = []

    def set_state(self, state: BackendState) -> None:
        self.state = state

    def set_reading(self, reading: Reading) -> None:
        self.reading = reading

    def set_rate(self, tokens_per_second: float | None) -> None:
        self.rate = tokens_per_second

    def set_answering(self, is_answering: bool) -> None:
        self.answering.append(is_answering)


class Fixture:
    """A session with all that is around it."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self.display = Display()
        self.draft = ""
        self.ended: list[StreamingTurn] = []
        history = History(Path(":memory:"))
        self.session = ChatSession(backend, history, ChatOptions(), self.display, lambda: self.draft, self.ended.append)

    def ask(self, question: str) -> Sink:
        sink = Sink()
        self.session.send(self.session.begin(question, sink))
        return sink

    async def counted(self, tokens: int) -> None:
        await until_async(lambda: self.display.reading == Reading(tokens, CONTEXT, is_exact=True))


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_chat.ui.context_meter.DEBOUNCE_SECONDS", 0.02)


async def test_the_draft_is_counted_once_the_backend_is_ready() -> None:
    test = Fixture(ScriptedBackend())
    test.draft = "two words"
    test.session.measure()
    test.session.backend.wake()
    await test.counted(2)
    assert test.display.state.phase == "ready"
    await test.session.close()


async def test_a_question_is_answered_and_kept() -> None:
    test = Fixture(ScriptedBackend(answers=[["Hel", "lo"]]))
    sink = test.ask("Hi")
    assert test.session.is_answering
    await until_async(lambda: test.ended)
    assert sink.text == "Hello"
    assert test.display.answering == [True, False]
    assert [message.text for message in test.session.conversation.messages] == ["Hi", "Hello"]
    await test.counted(2)
    await test.session.close()


async def test_a_turn_that_was_stopped_before_it_was_sent_asks_nothing() -> None:
    backend = ScriptedBackend()
    test = Fixture(backend)
    turn = test.session.begin("Hi", Sink())
    await test.session.stop()
    test.session.send(turn)
    await asyncio.sleep(0)
    assert backend.requests == []
    await test.session.close()


async def test_a_question_that_is_too_long_is_taken_back() -> None:
    test = Fixture(ScriptedBackend(answers=[[PromptTooLong.of(99, 10)]]))
    test.ask("too long")
    await until_async(lambda: test.ended)
    assert "99 tokens" in str(test.ended[0].refusal)
    assert test.session.conversation.messages == []
    await test.session.close()


async def test_opening_another_conversation_stops_the_answer() -> None:
    backend = ScriptedBackend(answers=[["half ", "whole"]], gate=asyncio.Event())
    test = Fixture(backend)
    sink = test.ask("Hi")
    await until_async(lambda: sink.text)
    await test.session.open(None)
    assert (backend.stopped, sink.end) == (1, ("cancelled", None))
    assert test.session.conversation.messages == []
    await test.session.close()
