"""The chat where the history cannot be written: nothing on the screen is lost, and the chat goes on."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from llama_chat.history import History
from tests.support.ui.driver import running
from tests.support.ui.scripted_backend import ScriptedBackend


class Disk:
    """The disk of a history, which can be full: the database connection that the history has opened is limited."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def fill(self, free: int = 0) -> None:
        """Leaves room for so many pages."""
        pages = self._connection.execute("PRAGMA page_count").fetchone()[0]
        self._connection.execute(f"PRAGMA max_page_count = {pages + free}")

    def make_room(self) -> None:
        self._connection.execute("PRAGMA max_page_count = 1000000")


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The database connections that are opened."""
    found: list[sqlite3.Connection] = []
    connect = sqlite3.connect

    def recording(*args: Any, **kwargs: Any) -> sqlite3.Connection:
        found.append(connect(*args, **kwargs))
        return found[-1]

    monkeypatch.setattr(sqlite3, "connect", recording)
    return found


@pytest.fixture
def history(tmp_path: Path, connections: list[sqlite3.Connection]) -> History:
    return History(tmp_path / "history.db")


@pytest.fixture
def disk(history: History, connections: list[sqlite3.Connection]) -> Disk:
    return Disk(next(connection for connection in connections if _is_open(connection)))


def _is_open(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError:
        return False
    return True


async def test_a_question_that_cannot_be_kept_becomes_the_draft_again(history: History, disk: Disk) -> None:
    question = "a question " * 1000
    async with running(history=history) as chat:
        await chat.ready()
        await chat.send("first")
        await chat.answered()
        disk.fill()
        chat.prompt.put(question)
        await chat.pilot.pause(0.5)
        await chat.press("enter")
        await chat.until(lambda: "cannot be used" in chat.status.hint)
        await chat.until(lambda: chat.prompt.text == question)
        assert [text for _, text in chat.messages] == ["first", "You said: first"]
        disk.make_room()
        await chat.send("second")
        await chat.answered()
        assert [text for _, text in chat.messages][-2:] == ["second", "You said: second"]
        assert chat.backend.requests[-1].messages[0].text == "first"


async def test_an_answer_that_cannot_be_kept_stays_on_the_screen(history: History, disk: Disk) -> None:
    pieces = ["word " * 1000] * 20
    async with running(ScriptedBackend(answers=[pieces]), history=history) as chat:
        await chat.ready()
        disk.fill(2)
        await chat.send("hi")
        await chat.answered()
        assert chat.messages == [("user", "hi"), ("model", "".join(pieces))]
        assert "full; free some space" in chat.note
        disk.make_room()
        await chat.send("again")
        await chat.answered()
        assert chat.messages[-1] == ("model", "You said: again")
