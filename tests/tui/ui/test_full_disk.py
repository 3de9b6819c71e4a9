"""The chat where the history cannot be written: nothing on the screen is lost, and the chat goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support.ui.driver import running
from tests.support.ui.scripted_backend import ScriptedBackend


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.db")


def fill(history: History, free: int = 0) -> None:
    """Has the file grow by no more than so many pages."""
    pages = history._connection.execute("PRAGMA page_count").fetchone()[0]
    history._connection.execute(f"PRAGMA max_page_count = {pages + free}")


def make_room(history: History) -> None:
    history._connection.execute("PRAGMA max_page_count = 1000000")


async def test_a_question_that_cannot_be_kept_becomes_the_draft_again(history: History) -> None:
    question = "a question " * 1000
    async with running(history=history) as chat:
        await chat.ready()
        await chat.send("first")
        await chat.answered()
        fill(history)
        chat.prompt.put(question)
        await chat.pilot.pause(0.5)
        await chat.press("enter")
        await chat.until(lambda: "cannot be used" in chat.status.hint)
        await chat.until(lambda: chat.prompt.text == question)
        assert [text for _, text in chat.messages] == ["first", "You said: first"]
        make_room(history)
        await chat.send("second")
        await chat.answered()
        assert [text for _, text in chat.messages][-2:] == ["second", "You said: second"]
        assert chat.backend.requests[-1].messages[0].text == "first"


async def test_an_answer_that_cannot_be_kept_stays_on_the_screen(history: History) -> None:
    pieces = ["word " * 1000] * 20
    async with running(ScriptedBackend(answers=[pieces]), history=history) as chat:
        await chat.ready()
        fill(history, 2)
        await chat.send("hi")
        await chat.answered()
        assert chat.messages == [("user", "hi"), ("model", "".join(pieces))]
        assert "full; free some space" in chat.note
        make_room(history)
        await chat.send("again")
        await chat.answered()
        assert chat.messages[-1] == ("model", "You said: again")
