"""The list of saved conversations."""

from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path

import pytest
from textual.widgets import Button, OptionList

from llama_backend.errors import Unreachable
from llama_chat.errors import HistoryError
from llama_chat.history import History
from llama_chat.ui.screens.confirm import ConfirmScreen
from llama_chat.ui.screens.history import HistoryScreen, short_time
from tests.support.ui.driver import Driver, running
from tests.support.ui.scripted_backend import ScriptedBackend


@pytest.fixture
def history() -> History:
    found = History(Path(":memory:"))
    for text in ("first [b]question[/b]", "second question", "third question"):
        saved = found.create()
        asked = found.add(saved.id, "user", text, parent_id=None)
        found.add(saved.id, "assistant", f"answer to the {text}", parent_id=asked.id)
    found.create(title="empty")
    return found


async def open_list(chat: Driver) -> None:
    await chat.press("ctrl+r")
    await chat.until(lambda: isinstance(chat.app.screen, HistoryScreen))
    await chat.pilot.pause()


async def delete_first(chat: Driver) -> None:
    """Opens the list and deletes the newest of it."""
    await open_list(chat)
    await chat.press("d")
    await chat.until(lambda: isinstance(chat.app.screen, ConfirmScreen))
    await chat.press("y")
    await chat.until(lambda: isinstance(chat.app.screen, HistoryScreen))


async def test_shows_titles_as_text_the_newest_first(history: History) -> None:
    async with running(history=history) as chat:
        await open_list(chat)
        text = chat.screen_text
        assert text.index("third question") < text.index("second question") < text.index("first [b]question[/b]")
        assert "empty" not in text


async def test_opens_the_chosen_one(history: History) -> None:
    async with running(history=history) as chat:
        await open_list(chat)
        await chat.press("down", "enter")
        await chat.until(lambda: chat.messages[:1] == [("user", "second question")])
        assert chat.has_keys(chat.prompt)


async def test_opens_by_the_mouse(history: History) -> None:
    async with running(history=history) as chat:
        await open_list(chat)
        await chat.pilot.click(OptionList, offset=(8, 2))
        await chat.until(lambda: chat.messages[:1] == [("user", "first [b]question[/b]")])


@pytest.mark.parametrize("key", ["escape", "q", "ctrl+r", "ctrl+c"])
async def test_closes_without_a_change(history: History, key: str) -> None:
    async with running(history=history) as chat:
        chat.prompt.put("draft")
        await open_list(chat)
        await chat.press(key)
        await chat.until(lambda: chat.app.screen is chat.chat)
        assert chat.prompt.text == "draft"
        assert chat.messages == []


async def test_deletes_after_a_yes(history: History) -> None:
    async with running(history=history) as chat:
        await open_list(chat)
        await chat.press("down", "d")
        await chat.until(lambda: isinstance(chat.app.screen, ConfirmScreen))
        assert "second question" in chat.screen_text
        await chat.press("y")
        await chat.until(lambda: isinstance(chat.app.screen, HistoryScreen))
        await chat.until(lambda: "second question" not in chat.screen_text)
        assert len(history.conversations()) == 3
        await chat.until(lambda: chat.backend.cleared == 1)


async def test_reports_where_the_backend_cannot_clear_the_kv_states(history: History) -> None:
    backend = ScriptedBackend(clear_error=Unreachable("the backend does not answer"))
    async with running(backend, history=history) as chat:
        await delete_first(chat)
        await chat.press("escape")
        await chat.until(lambda: "KV states are left" in chat.screen_text)
        assert len(history.conversations()) == 3


@pytest.mark.parametrize("key", ["n", "escape", "enter", "ctrl+c"])
async def test_anything_else_keeps_it(history: History, key: str) -> None:
    async with running(history=history) as chat:
        await open_list(chat)
        await chat.press("delete")
        await chat.until(lambda: isinstance(chat.app.screen, ConfirmScreen))
        await chat.press(key)
        await chat.until(lambda: isinstance(chat.app.screen, HistoryScreen))
        assert len(history.conversations()) == 4
        assert chat.backend.cleared == 0


async def test_deletes_by_the_mouse(history: History) -> None:
    async with running(history=history) as chat:
        await open_list(chat)
        await chat.press("d")
        await chat.until(lambda: isinstance(chat.app.screen, ConfirmScreen))
        await chat.pilot.pause()
        await chat.pilot.click(Button)
        await chat.until(lambda: len(history.conversations()) == 3)


async def test_deleting_the_open_conversation_begins_a_new_one(history: History) -> None:
    async with running(history=history, conversation=history.conversations()[0]) as chat:
        assert chat.messages[:1] == [("user", "third question")]
        await delete_first(chat)
        await chat.press("escape")
        await chat.until(lambda: chat.messages == [])


async def test_deleting_what_is_being_answered_stops_it(history: History) -> None:
    backend = ScriptedBackend(answers=[["an answer ", "that goes on"]], gate=asyncio.Event())
    async with running(backend, history=history) as chat:
        await chat.press(*"hello", "enter")
        await chat.until(lambda: backend.delivered == 1)
        await delete_first(chat)
        await chat.until(lambda: backend.cleared == 1)
        assert backend.stopped == 1, "before it was told to clear its KV states"
        assert len(history.conversations()) == 4
        await chat.press("escape")
        await chat.until(lambda: chat.messages == [])
        assert not chat.chat.is_answering


async def test_deleting_all_leaves_a_word() -> None:
    history = History(Path(":memory:"))
    history.add(history.create().id, "user", "only", parent_id=None)
    async with running(history=history) as chat:
        await open_list(chat)
        await chat.press("d")
        await chat.until(lambda: isinstance(chat.app.screen, ConfirmScreen))
        await chat.press("y")
        await chat.until(lambda: "There are no saved chats." in chat.screen_text)
        await chat.press("enter", "d", "escape")
        await chat.until(lambda: chat.app.screen is chat.chat)


async def test_a_history_that_cannot_be_read_is_told(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise HistoryError("the history is damaged")

    async with running(history=history) as chat:
        monkeypatch.setattr(history, "conversations", fail)
        await open_list(chat)
        await chat.until(lambda: "the history is damaged" in chat.screen_text)


@pytest.mark.parametrize(
    ("when", "shown"),
    [
        (datetime(2026, 3, 9, 8, 5), "08:05"),
        (datetime(2026, 3, 8, 23, 59), "8 Mar"),
        (datetime(2026, 1, 31), "31 Jan"),
        (datetime(2025, 12, 31), "2025"),
    ],
)
def test_times_are_short(when: datetime, shown: str) -> None:
    assert short_time(when, datetime(2026, 3, 9, 12, 0)) == shown
