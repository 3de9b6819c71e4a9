"""Text from outside cannot control the terminal: names and metadata of models, texts of servers, titles, answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support import gguf_files
from tests.support.scripted_server import ScriptedServer
from tests.support.terminal import Terminal
from tests.tui.cli.conftest import open_terminal, run

EVIL = "\x1b]0;OWNED\x07\x1b]52;c;aGk=\x1b\\\x1b[2J\x9b31m\x9d0;OWNED\x9c\x1bP+q\x90\x1bc\u202edetrever\u2066 \r\n NEXT"
MARKS = (b"\x1b]0;OWNED", b"\x1b]52", b"\x1bP", b"\x1bc", *(char.encode() for char in "\x9b\x9d\x90\u202e\u2066"))
"""What only EVIL has of what a terminal would obey; the chat itself colours the screen."""


@pytest.fixture
def evil_model(isolated_home: Path) -> Path:
    folder = isolated_home / "data" / "llama-chat" / "models"
    folder.mkdir(parents=True)
    path = folder / f"m{EVIL.replace('/', '')}.gguf"
    metadata = {"general.architecture": "llama", "general.license": EVIL, EVIL: EVIL, "list": [EVIL, EVIL]}
    path.write_bytes(gguf_files.gguf(metadata))
    return path


@pytest.fixture
def evil_history(history: History) -> History:
    talk = history.create(model=EVIL, system=EVIL, title="T" + EVIL)
    question = history.add(talk.id, "user", "a question\x1b]0;OWNED\x07\u202e", parent_id=None)
    answer = history.add(talk.id, "assistant", "", parent_id=question.id, model=EVIL)
    history.update(answer.id, f"the answer {EVIL}", finish_reason="error", error=EVIL)
    return history


def on_terminal(*arguments: str) -> bytes:
    """What a command writes to a terminal."""
    with closing(open_terminal(*arguments)) as terminal:
        terminal.end()
        return terminal.written


def is_obeyed(screen: bytes) -> list[bytes]:
    return [mark for mark in (*MARKS, b"\x07", b"\x1b") if mark in screen]


@pytest.mark.parametrize("arguments", [[], ["--json"], ["show", "MODEL"], ["show", "--json", "MODEL"]], ids=" ".join)
def test_a_model(evil_model: Path, arguments: list[str]) -> None:
    screen = on_terminal("models", *[evil_model.stem if word == "MODEL" else word for word in arguments])
    assert b"OWNED" in screen
    assert is_obeyed(screen) == []


def test_a_model_that_is_to_be_removed(evil_model: Path) -> None:
    with closing(open_terminal("models", "rm", evil_model.stem)) as terminal:
        terminal.read_until(b"Delete this for good?")
        terminal.write(b"n\n")
        terminal.end()
        assert b"OWNED" in terminal.written
        assert is_obeyed(terminal.written) == []


def test_a_row_is_a_line_also_in_a_pipe(evil_model: Path) -> None:
    rows = run("models").out.decode().splitlines()
    assert [row[:4] for row in rows if "OWNED" not in row and "smollm2" not in row] == ["NAME"]
    assert sum("OWNED" in row for row in rows) == 1
    assert json.loads(run("models", "--json").out)[0]["license"] == EVIL


@pytest.mark.parametrize("arguments", [["list"], ["list", "--json"], ["show"], ["show", "--json"]], ids=" ".join)
def test_a_conversation(evil_history: History, arguments: list[str]) -> None:
    screen = on_terminal("history", *arguments)
    assert b"OWNED" in screen
    assert is_obeyed(screen) == []


def test_what_is_not_there() -> None:
    asks = ["ask", "-m", EVIL, "a"], ["ask", "--url", EVIL, "a"]
    for arguments in (["history", "show", EVIL], ["models", "show", EVIL], [EVIL], *asks):
        screen = on_terminal(*arguments)
        assert b"OWNED" in screen
        assert is_obeyed(screen) == []


def test_a_setting(isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_SYSTEM", EVIL)
    assert is_obeyed(on_terminal("config")) == []
    monkeypatch.setenv("LLAMA_CHAT_THREADS", EVIL)
    assert is_obeyed(on_terminal("config")) == []


def test_a_server(backend: ScriptedServer) -> None:
    backend.model = EVIL
    for arguments in (["models", "--url", backend.url], ["status", "--url", backend.url], ["ask", "a"]):
        backend.scripts.clear()
        backend.enqueue(status=400, error={"message": EVIL, "code": "invalid_request"})
        screen = on_terminal(*arguments)
        assert b"OWNED" in screen
        assert is_obeyed(screen) == []


def test_an_answer_that_comes_in_pieces(backend: ScriptedServer) -> None:
    backend.enqueue(*EVIL)
    screen = on_terminal("ask", "a")
    assert "␛]0;OWNED␇".encode() in screen
    assert b"detrever\xef\xbf\xbd \r\n NEXT\r\n" in screen
    assert is_obeyed(screen) == []


def test_a_pipe_gets_every_byte_of_an_answer(backend: ScriptedServer) -> None:
    backend.enqueue(*EVIL)
    assert run("ask", "a").out == EVIL.encode() + b"\n"


@pytest.fixture
def chat(backend: ScriptedServer, evil_history: History) -> Iterator[Terminal]:
    """The chat, resumed where everything that can be shown is evil."""
    backend.model = EVIL
    opened = Terminal(sys.executable, "-m", "llama_chat", "--continue", "--url", backend.url)
    yield opened
    opened.close()


def test_the_chat(chat: Terminal, backend: ScriptedServer) -> None:
    backend.enqueue(*EVIL, *" &#x202e;&#x2066; &amp;")
    backend.enqueue(status=400, error={"message": EVIL, "code": "invalid_request"})
    for keys, sign in (
        (b"", b"rite a message"),
        (b"ask", b"ask"),
        (b"\r", b"&"),
        (b"again\r", b"asks again"),
        (b"\x12", b"Earlier"),
        (b"d", b"Delete"),
    ):
        chat.write(keys)
        chat.read_until(sign, 20)
        chat.read_for(0.5)
    assert [mark for mark in MARKS if mark in chat.written] == []
