"""The command line as its users have it: real processes, pipes and terminals, and a scripted backend."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support.scripted_server import ScriptedServer
from tests.support.terminal import Terminal

PROGRAM = (sys.executable, "-m", "llama_chat")


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it wrote."""

    code: int
    out: bytes
    err: str


def run(*args: str | bytes, stdin: bytes = b"", timeout: float = 60) -> Outcome:
    """Runs `llama-chat` to its end, with pipes on all three streams."""
    done = subprocess.run([*PROGRAM, *args], input=stdin, capture_output=True, timeout=timeout)
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


def start(*args: str) -> subprocess.Popen[bytes]:
    """Starts `llama-chat` with pipes for its output and nothing on standard input."""
    return subprocess.Popen([*PROGRAM, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def fails(done: Outcome, code: int, pattern: str, out: bytes = b"") -> None:
    """Asserts an exit code and one line on standard error."""
    assert (done.code, done.out) == (code, out), done
    assert re.fullmatch(r"llama-chat: [^\n]+\n", done.err), done.err
    assert re.search(pattern, done.err), done.err


def open_terminal(*args: str, stdout: int | None = None) -> Terminal:
    """`llama-chat` in a terminal of its own; `stdout` is a file that it writes to instead."""
    return Terminal(*PROGRAM, *args, stdout=stdout)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """A scripted backend elsewhere, which LLAMA_CHAT_URL names."""
    with ScriptedServer() as scripted:
        monkeypatch.setenv("LLAMA_CHAT_URL", scripted.url)
        yield scripted


@pytest.fixture
def local_backend(isolated_home: Path) -> Iterator[ScriptedServer]:
    """A scripted backend on the socket where front ends look."""
    folder = isolated_home / "runtime" / "llama-chat"
    folder.mkdir(mode=0o700)
    with ScriptedServer(folder / "backend.sock") as scripted:
        yield scripted


@pytest.fixture
def history(isolated_home: Path) -> Iterator[History]:
    """The history that the commands write."""
    opened = History(isolated_home / "data" / "llama-chat" / "history.db")
    yield opened
    opened.close()
