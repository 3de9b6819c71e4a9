"""One question and its answer: what is sent, what is yielded, and what is on disk at every moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from llama_backend.errors import BackendError, EngineDied
from llama_backend.wire.api import (
    ChatMessage,
    ChatRequest,
    Delta,
    ModelInfo,
    SamplingParams,
    Timings,
    TokenCount,
    Usage,
)
from llama_backend.wire.status import BackendStatus
from llama_chat.errors import HistoryError
from llama_chat.history import Conversation, History, StoredMessage
from llama_chat.turn import Turn, to_request
from tests.support.wait import until_async

ENDING = (
    Delta(finish_reason="stop", timings=Timings(predicted_n=2), seed=3),
    Delta(usage=Usage(5, 2, 7), model="scripted"),
)


class FakeBackend:
    """Yields what it was given; an exception among it is raised, a number is waited for in seconds."""

    def __init__(self, *script: Delta | BackendError | float) -> None:
        self._script = script
        self.requests: list[ChatRequest] = []
        self.asked = asyncio.Event()
        self.closed = False

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        self.asked.set()
        try:
            for step in self._script:
                if isinstance(step, BackendError):
                    raise step
                if isinstance(step, Delta):
                    yield step
                else:
                    await asyncio.sleep(step)
        finally:
            self.closed = True

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        raise NotImplementedError

    async def models(self) -> list[ModelInfo]:
        raise NotImplementedError

    async def status(self) -> BackendStatus:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    opened = History(tmp_path / "history.db")
    yield opened
    opened.close()


async def read(turn: Turn, backend: FakeBackend, text: str = "hi") -> str:
    return "".join([delta.text async for delta in turn.stream(backend, text)])


def stored(history: History, turn: Turn) -> list[StoredMessage]:
    assert turn.conversation is not None
    return history.messages(turn.conversation.id)


async def test_an_answer_is_kept_with_its_facts(history: History) -> None:
    turn = Turn(history, None, model="asked for", system="Be brief.")
    backend = FakeBackend(Delta("Hel"), Delta("lo"), *ENDING)
    assert await read(turn, backend) == "Hello"
    question, answer = stored(history, turn)
    assert (question.role, question.text, question.parent_id) == ("user", "hi", None)
    assert (answer.role, answer.text, answer.parent_id) == ("assistant", "Hello", question.id)
    assert (answer.finish_reason, answer.error, answer.model, answer.seed) == ("stop", None, "scripted", 3)
    assert (answer.prompt_tokens, answer.completion_tokens) == (5, 2)
    assert turn.conversation is not None
    assert (turn.conversation.system, turn.conversation.model) == ("Be brief.", "asked for")
    assert turn.conversation.tip == answer.id
    assert (turn.text, turn.finish_reason, turn.usage) == ("Hello", "stop", Usage(5, 2, 7))


async def test_the_request_has_the_branch_and_the_sampling(history: History) -> None:
    first = Turn(history, None, system="Be brief.")
    await read(first, FakeBackend(Delta("one"), *ENDING), "first")
    second, backend = Turn(history, first.conversation, model="m"), FakeBackend(*ENDING)
    async for _ in second.stream(backend, "second", SamplingParams(temperature=0.0, stop=["x"])):
        pass
    (request,) = backend.requests
    assert [(message.role, message.text) for message in request.messages] == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "one"),
        ("user", "second"),
    ]
    assert (request.model, request.temperature, request.stop) == ("m", 0.0, ["x"])


async def test_the_callers_tip_decides_what_is_sent(history: History) -> None:
    """Another process went on meanwhile; what it added is not on this screen and not in this request."""
    first = Turn(history, None)
    await read(first, FakeBackend(Delta("one"), *ENDING), "first")
    seen = first.conversation
    await read(Turn(history, seen), FakeBackend(Delta("two"), *ENDING), "elsewhere")
    here, backend = Turn(history, seen), FakeBackend(*ENDING)
    await read(here, backend, "here")
    assert [message.text for message in backend.requests[0].messages] == ["first", "one", "here"]


async def test_an_earlier_tip_makes_a_branch(history: History) -> None:
    first = Turn(history, None)
    await read(first, FakeBackend(Delta("one"), *ENDING), "first")
    assert first.conversation is not None
    again = Turn(history, replace(first.conversation, tip=None))
    await read(again, FakeBackend(Delta("other"), *ENDING), "first, otherwise")
    assert [message.text for message in stored(history, again)] == ["first, otherwise", "other"]
    assert history.conversation(first.conversation.id).message_count == 4


async def test_the_question_is_on_disk_before_it_is_sent(history: History) -> None:
    class Looking(FakeBackend):
        async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
            self.found = [message.text for message in stored(history, turn)]
            for delta in ENDING:
                yield delta

    turn, backend = Turn(history, None), Looking()
    await read(turn, backend)
    assert backend.found == ["hi", ""]


async def test_the_growing_answer_is_written_while_nothing_more_comes(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_chat.turn.SAVE_SECONDS", 0.05)
    turn = Turn(history, None)
    stream = turn.stream(FakeBackend(Delta("so far"), 60.0), "hi")
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await until_async(lambda: stored(history, turn)[-1].text == "so far")
    assert stored(history, turn)[-1].finish_reason is None
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_closing_the_stream_keeps_what_came(history: History) -> None:
    turn, backend = Turn(history, None), FakeBackend(Delta("half"), Delta("more"), *ENDING)
    async with aclosing(turn.stream(backend, "hi")) as deltas:
        await anext(deltas)
    assert backend.closed
    answer = stored(history, turn)[-1]
    assert (answer.text, answer.finish_reason, answer.error) == ("half", "cancelled", None)


@pytest.mark.parametrize("text", ["", "half"])
async def test_cancelling_the_task_keeps_what_came(history: History, text: str) -> None:
    turn, backend = Turn(history, None), FakeBackend(Delta(text), 60.0)
    task = asyncio.create_task(read(turn, backend))
    await backend.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert backend.closed
    answer = stored(history, turn)[-1]
    assert (answer.text, answer.finish_reason) == (text, "cancelled")


async def test_cancelling_while_the_question_is_written(history: History) -> None:
    turn, backend = Turn(history, None), FakeBackend(*ENDING)
    task = asyncio.create_task(read(turn, backend))
    await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert backend.requests == []
    for conversation in history.conversations():
        for message in history.messages(conversation.id):
            assert message.role == "user" or message.finish_reason == "cancelled"


async def test_an_error_is_kept_beside_what_came(history: History) -> None:
    turn = Turn(history, None)
    with pytest.raises(EngineDied):
        await read(turn, FakeBackend(Delta("half"), EngineDied("it died")))
    answer = stored(history, turn)[-1]
    assert (answer.text, answer.finish_reason, answer.error) == ("half", "error", "it died")
    assert (turn.finish_reason, turn.error) == ("error", "it died")


async def test_without_a_history_nothing_is_kept() -> None:
    turn, backend = Turn(None, None, system="Be brief."), FakeBackend(Delta("Hello"), *ENDING)
    assert await read(turn, backend) == "Hello"
    assert (turn.conversation, turn.question, turn.answer) == (None, None, None)
    assert [message.role for message in backend.requests[0].messages] == ["system", "user"]


async def test_without_recording_the_history_is_only_read(history: History) -> None:
    first = Turn(history, None)
    await read(first, FakeBackend(Delta("one"), *ENDING), "first")
    backend = FakeBackend(Delta("two"), *ENDING)
    turn = Turn(history, first.conversation, record=False)
    assert await read(turn, backend, "second") == "two"
    assert [message.text for message in backend.requests[0].messages] == ["first", "one", "second"]
    assert len(stored(history, turn)) == 2


async def test_a_history_that_breaks_lets_the_answer_come(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_chat.turn.SAVE_SECONDS", 0.05)
    turn = Turn(history, None)
    came = []

    def full(*_: object, **__: object) -> None:
        raise HistoryError("the disk is full")

    async def consume() -> None:
        async for delta in turn.stream(FakeBackend(Delta("a"), 0.1, Delta("b"), *ENDING), "hi"):
            came.append(delta.text)
            monkeypatch.setattr(history, "update", full)

    with pytest.raises(HistoryError, match="full"):
        await consume()
    assert "".join(came) == "ab"


async def test_a_history_that_cannot_take_the_question_asks_nothing(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> Conversation:
        raise HistoryError("the disk is full")

    monkeypatch.setattr(history, "create", full)
    backend = FakeBackend(*ENDING)
    with pytest.raises(HistoryError):
        await read(Turn(history, None), backend)
    assert backend.requests == []


def said(role: str, text: str) -> StoredMessage:
    return StoredMessage(0, "c", None, role, text, 0.0)


@pytest.mark.parametrize(
    ("past", "sent"),
    [
        ([("user", "a"), ("assistant", "b")], ["a", "b"]),
        ([("user", "a"), ("assistant", "")], []),
        ([("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c")], ["b", "c"]),
        ([("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "")], ["a", "b"]),
        ([("assistant", "")], []),
        ([], []),
    ],
)
def test_answers_without_text_are_left_out(past: list[tuple[str, str]], sent: list[str]) -> None:
    assert [message.text for message in to_request([said(*message) for message in past])] == sent
