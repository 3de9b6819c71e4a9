"""A person chats: asking, stopping, asking again, going on, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from llama_backend.errors import EngineDied, PromptTooLong, QueueFull, Unreachable
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.status import BackendStatus
from llama_chat.errors import HistoryError
from llama_chat.history import History
from llama_chat.ui.chat_options import ChatOptions
from tests.support.ui.driver import Driver, running
from tests.support.ui.scripted_backend import READY, ScriptedBackend


def stored(chat: Driver) -> list[tuple[str, str, str | None]]:
    """What the newest conversation of the history holds."""
    conversation = chat.history.latest()
    assert conversation
    return [(found.role, found.text, found.finish_reason) for found in chat.history.messages(conversation.id)]


async def test_an_answer_streams_and_is_kept() -> None:
    async with running(ScriptedBackend(answers=[["Hel", "lo ", "**you**"]])) as chat:
        await chat.send("Hi")
        await chat.answered()
        assert chat.messages == [("user", "Hi"), ("model", "Hello **you**")]
        assert "Hello you" in chat.screen_text
        assert chat.note == ""
        assert chat.prompt.text == ""
        assert stored(chat) == [("user", "Hi", None), ("assistant", "Hello **you**", "stop")]


async def test_the_conversation_goes_along() -> None:
    options = ChatOptions(model="m", system="Be brief.", sampling=SamplingParams(temperature=0.5))
    async with running(options=options) as chat:
        for text in ("one", "two"):
            await chat.send(text)
            await chat.answered()
        request = chat.backend.requests[-1]
        assert [(message.role, message.text) for message in request.messages] == [
            ("system", "Be brief."),
            ("user", "one"),
            ("assistant", "You said: one"),
            ("user", "two"),
        ]
        assert request.temperature == 0.5
        assert request.model == "m"


async def test_nothing_is_sent_for_nothing() -> None:
    async with running() as chat:
        await chat.send("  \n ")
        await chat.pilot.pause(0.1)
        assert chat.messages == []
        assert chat.backend.requests == []


async def test_typed_and_generated_text_is_never_markup() -> None:
    evil = "[red]x[/red] [@click=app.quit]y[/] $primary {z} [/] [link=http://x.org]l[/link]"
    async with running(ScriptedBackend(answers=[[evil + "\x1b[31m\x9b31m\x07"]]), size=(120, 24)) as chat:
        await chat.send(evil + "\x1b]0;title\x07")
        await chat.answered()
        await chat.pilot.pause()
        assert chat.screen_text.count("[red]x[/red] [@click=app.quit]y[/] $primary {z} [/]") == 2
        assert not {"\x1b", "\x07", "\x9b"} & set(chat.screen_text)


class TestLoading:
    async def test_states_are_shown_and_a_message_waits(self) -> None:
        loading = [BackendStatus(state="loading", model="m", progress=part / 10) for part in range(3)]
        backend = ScriptedBackend(states=[*loading, loading[-1]])
        async with running(backend) as chat:
            await chat.send("early")
            await chat.until(lambda: "loading 20%" in chat.line)
            await chat.until(lambda: chat.note == "waiting for the model: loading 20%")
            assert chat.backend.requests == []
            assert stored(chat)[0] == ("user", "early", None)
            backend.states = [READY]
            await chat.answered()
            assert chat.messages[-1] == ("model", "You said: early")
            assert "ready" in chat.line

    async def test_typing_goes_on_meanwhile(self) -> None:
        async with running(ScriptedBackend(states=[BackendStatus(state="loading", model="m")])) as chat:
            await chat.press(*"abc")
            assert chat.prompt.text == "abc"

    async def test_a_waiting_message_can_be_taken_back(self) -> None:
        async with running(ScriptedBackend(states=[BackendStatus(state="loading", model="m")])) as chat:
            await chat.send("early")
            await chat.until(lambda: chat.chat.is_answering)
            await chat.press("escape")
            await chat.answered()
            assert chat.note == "■ stopped"
            assert chat.backend.requests == []

    async def test_a_failed_model_says_why_and_the_next_message_tries_again(self) -> None:
        backend = ScriptedBackend(states=[BackendStatus(state="failed", model="m", reason="m.gguf is no model")])
        async with running(backend) as chat:
            await chat.until(lambda: "failed: m.gguf is no model" in chat.line)
            await chat.send("anyone?")
            await chat.answered()
            assert "m.gguf is no model" in chat.note
            backend.states = [READY]
            await chat.press("ctrl+t")
            await chat.until(lambda: chat.messages[-1] == ("model", "You said: anyone?"))
            assert len(chat.messages) == 2

    async def test_an_unreachable_backend_says_so(self) -> None:
        async with running(ScriptedBackend(states=[Unreachable("no backend answers at host")])) as chat:
            await chat.until(lambda: "failed: no backend answers at host" in chat.line)


class TestStopping:
    async def test_escape_keeps_what_came(self) -> None:
        backend = ScriptedBackend(answers=[["The sea ", "is ", "wide"]], gate=asyncio.Event())
        async with running(backend) as chat:
            await chat.send("Tell me")
            await chat.until(lambda: chat.messages[-1:] == [("model", "The sea is ")])
            assert "Esc stops" in chat.line
            await chat.press("escape")
            await chat.answered()
            assert chat.messages[-1] == ("model", "The sea is ")
            assert chat.note == "■ stopped"
            assert backend.stopped == 1
            assert stored(chat)[-1] == ("assistant", "The sea is ", "cancelled")

    async def test_a_stopped_answer_is_part_of_what_follows(self) -> None:
        backend = ScriptedBackend(answers=[["half ", "whole"]], gate=asyncio.Event())
        async with running(backend) as chat:
            await chat.send("Tell me")
            await chat.until(lambda: backend.delivered == 1)
            await chat.press("escape")
            await chat.answered()
            backend.gate = None
            await chat.send("Go on")
            await chat.answered()
            assert [message.text for message in backend.requests[-1].messages] == ["Tell me", "half ", "Go on"]

    async def test_a_second_message_waits_in_the_draft(self) -> None:
        async with running(ScriptedBackend(answers=[["a", "b"]], gate=asyncio.Event())) as chat:
            await chat.send("one")
            await chat.until(lambda: chat.chat.is_answering)
            await chat.send("two")
            await chat.until(lambda: "Esc stops it" in chat.line)
            assert chat.prompt.text == "two"
            assert len(chat.backend.requests) == 1

    async def test_quitting_keeps_what_came(self, tmp_path: Path) -> None:
        history = History(tmp_path / "history.db")
        backend = ScriptedBackend(answers=[["half ", "whole"]], gate=asyncio.Event())
        async with running(backend, history=history) as chat:
            await chat.send("Tell me")
            await chat.until(lambda: backend.delivered == 1)
            await chat.press("ctrl+q")
        assert stored(chat)[-1] == ("assistant", "half ", "cancelled")
        assert backend.closed


class TestErrors:
    async def test_an_error_stands_beside_what_came(self) -> None:
        backend = ScriptedBackend(answers=[["The sea ", EngineDied("the engine ended with signal 9")]])
        async with running(backend) as chat:
            await chat.send("Tell me")
            await chat.answered()
            assert chat.messages[-1] == ("model", "The sea ")
            assert chat.note.startswith("✗ the engine ended with signal 9")
            assert stored(chat)[-1] == ("assistant", "The sea ", "error")
            await chat.ready()

    async def test_a_backend_that_went_away_is_looked_for_again(self) -> None:
        backend = ScriptedBackend(answers=[[Unreachable("the connection broke")]])
        async with running(backend) as chat:
            await chat.send("Hello?")
            await chat.answered()
            await chat.until(lambda: backend.closed == 1)
            await chat.ready()
            await chat.press("ctrl+t")
            await chat.until(lambda: chat.messages == [("user", "Hello?"), ("model", "You said: Hello?")])

    async def test_markup_in_an_error_is_text(self) -> None:
        async with running(ScriptedBackend(answers=[[QueueFull("busy [red]\x1b[0m")]])) as chat:
            await chat.send("Hi")
            await chat.answered()
            assert "busy [red]␛[0m" in chat.note

    async def test_a_history_that_cannot_be_written_is_reported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with running() as chat:

            def fail(*_: object, **__: object) -> None:
                raise HistoryError("the disk is full")

            monkeypatch.setattr(chat.history, "create", fail)
            await chat.send("Hi")
            await chat.until(lambda: "the disk is full" in chat.line)
            await chat.until(lambda: (chat.prompt.text, chat.messages) == ("Hi", []))

    async def test_the_length_limit_is_shown(self) -> None:
        async with running(ScriptedBackend(answers=[["a b c"]], finish_reason="length")) as chat:
            await chat.send("Hi")
            await chat.answered()
            assert "length limit" in chat.note


class TestTooLong:
    async def test_a_draft_that_does_not_fit_stays(self) -> None:
        async with running(ScriptedBackend(context=10)) as chat:
            await chat.ready()
            chat.prompt.put("word " * 12)
            await chat.until(lambda: chat.status.reading.is_exact and chat.status.reading.count == 12)
            assert "12 / 10" in chat.line
            assert not chat.status.reading.fits
            await chat.press("enter")
            await chat.until(lambda: "12 tokens do not fit into 10" in chat.line)
            assert chat.prompt.text == "word " * 12
            assert chat.backend.requests == []
            await chat.press("backspace")
            await chat.until(lambda: "do not fit" not in chat.line)

    async def test_a_refused_question_becomes_the_draft_again(self) -> None:
        async with running(ScriptedBackend(answers=[[PromptTooLong.of(99, 10)]])) as chat:
            await chat.send("too long\nby far")
            await chat.until(lambda: chat.prompt.text == "too long\nby far")
            assert chat.messages == []
            assert "99 tokens" in chat.line
            await chat.send("short")
            await chat.answered()
            assert [message.text for message in chat.backend.requests[-1].messages] == ["short"]

    async def test_what_was_typed_meanwhile_stays_too(self) -> None:
        gate = asyncio.Event()
        async with running(ScriptedBackend(answers=[[PromptTooLong.of(99, 10)]], gate=gate)) as chat:
            await chat.send("first")
            await chat.until(lambda: chat.backend.requests)
            chat.prompt.put("second")
            gate.set()
            await chat.until(lambda: chat.prompt.text == "first\nsecond")


class TestRetry:
    async def test_asks_the_last_question_again(self) -> None:
        async with running(ScriptedBackend(answers=[["one"], ["two"]])) as chat:
            await chat.send("Say")
            await chat.answered()
            await chat.press("ctrl+t")
            await chat.until(lambda: chat.messages == [("user", "Say"), ("model", "two")])
            assert [message.text for message in chat.backend.requests[-1].messages] == ["Say"]
            assert [text for _, text, _ in stored(chat)] == ["Say", "two"]

    async def test_nothing_to_ask_again(self) -> None:
        async with running() as chat:
            await chat.press("ctrl+t")
            assert chat.backend.requests == []


class TestConversations:
    async def test_a_saved_one_is_opened_and_goes_on(self) -> None:
        history = History(Path(":memory:"))
        saved = history.create(model="m")
        asked = history.add(saved.id, "user", "Who?", parent_id=None)
        answer = history.add(saved.id, "assistant", "", parent_id=asked.id)
        history.update(answer.id, "Me.", finish_reason="stop")
        async with running(history=history, conversation=history.conversation(saved.id)) as chat:
            assert chat.messages == [("user", "Who?"), ("model", "Me.")]
            assert chat.note == ""
            await chat.press("up")
            assert chat.prompt.text == "Who?"
            await chat.send("And?")
            await chat.until(lambda: len(chat.messages) == 4 and not chat.chat.is_answering)
            assert [text for _, text, _ in stored(chat)] == ["Who?", "Me.", "And?", "You said: And?"]

    async def test_an_answer_whose_writer_was_killed_is_marked(self) -> None:
        history = History(Path(":memory:"))
        saved = history.create()
        asked = history.add(saved.id, "user", "Who?", parent_id=None)
        history.add(saved.id, "assistant", "It was", parent_id=asked.id)
        async with running(history=history, conversation=history.conversation(saved.id)) as chat:
            assert chat.note == "■ stopped"

    async def test_a_new_one_begins_empty_and_keeps_the_draft(self) -> None:
        async with running() as chat:
            await chat.send("one")
            await chat.answered()
            chat.prompt.put("draft")
            await chat.press("ctrl+n")
            await chat.until(lambda: chat.messages == [])
            assert "llama-chat" in chat.screen_text
            assert chat.prompt.text == "draft"
            await chat.send("two")
            await chat.answered()
            assert len(chat.history.conversations()) == 2

    async def test_a_new_one_stops_the_answer_of_the_old(self) -> None:
        async with running(ScriptedBackend(answers=[["half ", "whole"]], gate=asyncio.Event())) as chat:
            await chat.send("one")
            await chat.until(lambda: chat.backend.delivered == 1)
            await chat.press("ctrl+n")
            await chat.until(lambda: chat.messages == [])
            assert chat.backend.stopped == 1
            assert stored(chat)[-1] == ("assistant", "half ", "cancelled")
