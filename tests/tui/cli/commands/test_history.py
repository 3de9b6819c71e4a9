"""`llama-chat history`: list, show, delete."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from llama_chat.history import Conversation, History
from tests.tui.cli.conftest import Outcome, open_terminal, run


@pytest.fixture
def talk(history: History) -> Conversation:
    """A conversation with a stopped answer."""
    conversation = history.create(model="llama2:7b-chat", system="Be brief.")
    question = history.add(conversation.id, "user", "What is a GGUF?\nSay.", parent_id=None)
    answer = history.add(conversation.id, "assistant", "", parent_id=question.id)
    history.update(answer.id, "A file\n\nof weights.\n", finish_reason="stop")
    more = history.add(conversation.id, "user", "More.", parent_id=answer.id)
    cut = history.add(conversation.id, "assistant", "", parent_id=more.id)
    history.update(cut.id, "It \x1b[31mbegan", finish_reason="cancelled")
    return history.conversation(conversation.id)


def test_list(talk: Conversation, history: History) -> None:
    other = history.create(title="Another")
    done = run("history", "list")
    assert (done.code, done.err) == (0, "")
    head, second, first = done.out.decode().splitlines()
    assert head.split() == ["ID", "CHANGED", "MESSAGES", "TITLE"]
    assert re.fullmatch(rf"{other.id}  \d{{4}}-\d\d-\d\d \d\d:\d\d  0 +Another", first)
    assert re.fullmatch(rf"{talk.id}  .*  4 +What is a GGUF\?", second)
    assert [found["id"] for found in json.loads(run("history", "list", "--json").out)] == [talk.id, other.id]
    assert len(json.loads(run("history", "list", "--json", "-n", "1").out)) == 1


def test_an_empty_list_is_empty() -> None:
    assert run("history", "list") == Outcome(0, b"", "")
    assert run("history", "list", "--json") == Outcome(0, b"[]\n", "")


def test_show(talk: Conversation) -> None:
    done = run("history", "show", talk.id[:6])
    assert (done.code, done.err) == (0, "")
    head, facts, rest = done.out.decode().split("\n\n", 2)
    assert head == "# What is a GGUF?"
    assert re.fullmatch(rf"{talk.id} · [\d :-]+ · llama2:7b-chat", facts)
    assert rest == (
        "## system\n\nBe brief.\n\n## user\n\nWhat is a GGUF?\nSay.\n\n## assistant\n\nA file\n\nof weights.\n\n"
        "## user\n\nMore.\n\n## assistant\n\nIt \x1b[31mbegan\n\n*(cancelled)*\n"
    )
    assert run("history", "show").out == done.out


def test_show_as_json(talk: Conversation) -> None:
    found = json.loads(run("history", "show", "--json").out)
    assert found["id"] == talk.id
    assert [message["role"] for message in found["messages"]] == ["user", "assistant", "user", "assistant"]
    assert found["messages"][-1]["finish_reason"] == "cancelled"


def test_show_on_a_terminal_is_harmless(talk: Conversation) -> None:
    terminal = open_terminal("history", "show")
    assert terminal.end() == 0
    terminal.close()
    assert "It ␛[31mbegan".encode() in terminal.written
    assert b"\x1b" not in terminal.written


@pytest.mark.parametrize("command", ["show", "delete"])
def test_an_unknown_id(talk: Conversation, command: str) -> None:
    done = run("history", command, "ffff")
    assert (done.code, done.out) == (1, b"")
    assert re.fullmatch(r"llama-chat: no conversation has the id 'ffff'[^\n]+\n", done.err)


def test_show_without_any_conversation() -> None:
    assert run("history", "show") == Outcome(1, b"", "llama-chat: there is no conversation yet\n")


def test_delete(talk: Conversation, history: History) -> None:
    other, kept = history.create(title="Another"), history.create(title="Kept")
    assert run("history", "delete", "--yes", talk.id, other.id[:8], talk.id) == Outcome(0, b"", "")
    assert [found.id for found in history.conversations()] == [kept.id]


def test_delete_of_several_is_all_or_nothing(talk: Conversation, history: History) -> None:
    assert run("history", "delete", "--yes", talk.id, "ffff").code == 1
    assert [found.id for found in history.conversations()] == [talk.id]


def test_delete_needs_a_yes(talk: Conversation, history: History) -> None:
    done = run("history", "delete", talk.id)
    assert (done.code, done.err) == (
        2,
        "llama-chat: standard input is not a terminal, so nobody can confirm this; use --yes\n",
    )
    assert [found.id for found in history.conversations()] == [talk.id]


@pytest.mark.parametrize(("keys", "code", "left"), [(b"y\r", 0, 0), (b"n\r", 1, 1), (b"\r", 1, 1), (b"\x03", 130, 1)])
def test_delete_asks(talk: Conversation, history: History, keys: bytes, code: int, left: int) -> None:
    terminal = open_terminal("history", "delete", talk.id)
    terminal.read_until(b"[y/N]")
    time.sleep(0.3)  # CPython misses an interrupt in the moment before it waits for a line
    terminal.write(keys)
    assert terminal.end() == code
    terminal.close()
    assert f"{talk.id}  What is a GGUF?".encode() in terminal.written
    assert len(history.conversations()) == left


def test_a_history_that_is_none(isolated_home: Path) -> None:
    folder = isolated_home / "data" / "llama-chat"
    folder.mkdir()
    (folder / "history.db").write_bytes(b"SQLite format 3\0 but no more than that" + b"\0" * 200)
    done = run("history", "list")
    assert done.code == 1
    assert re.fullmatch(r"llama-chat: the history [^\n]+history\.db[^\n]+\n", done.err)
