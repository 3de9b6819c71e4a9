"""The command line as its users have it: real processes, pipes and terminals, and a scripted backend."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support.scripted_server import ScriptedServer

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


class Terminal:
    """`llama-chat` in a terminal of its own; everything it writes there is in `screen`."""

    def __init__(self, *args: str, stdout: int | None = None) -> None:
        """`stdout` is a file to write to instead of the terminal."""
        self._master, slave = os.openpty()
        self._process = subprocess.Popen([*PROGRAM, *args], preexec_fn=lambda: _take(slave, stdout))
        os.close(slave)
        self.screen = b""

    def send(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def read_until(self, text: bytes, seconds: float = 60) -> None:
        """Reads until `text` has appeared."""
        end = time.monotonic() + seconds
        while text not in self.screen:
            assert time.monotonic() < end, self.screen
            assert self._read(0.1), self.screen

    def wait(self, seconds: float = 60) -> int:
        """Reads to the end; the exit code."""
        end = time.monotonic() + seconds
        while self._read(0.1):
            assert time.monotonic() < end, self.screen
        return self._process.wait(seconds)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        """Reads what is there; false once no process has the terminal open."""
        if not select.select([self._master], [], [], seconds)[0]:
            return True
        try:
            self.screen += os.read(self._master, 65536)
        except OSError:
            return False
        return True


def _take(slave: int, stdout: int | None) -> None:
    """Makes the terminal the new process's own."""
    kept = None if stdout is None else os.dup(stdout)
    os.login_tty(slave)
    if kept is not None:
        os.dup2(kept, 1)


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
