"""The chat in a real terminal: bytes in, bytes out, signals, and the state that the terminal is left in."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support.terminal import Terminal

LEFT = b"\x1b[?1049l"
"""What ends the alternate screen."""


def chat(history: Path, **environment: str) -> Terminal:
    """A chat with a scripted backend, in a terminal."""
    return Terminal(sys.executable, "-m", "tests.support.ui.terminal_chat", str(history), stdout=None, **environment)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


@pytest.fixture
def terminal(path: Path) -> Iterator[Terminal]:
    found = chat(path)
    found.read_until(b"rite a message")
    yield found
    found.close()


def test_leaving_restores_the_terminal(terminal: Terminal) -> None:
    terminal.write(b"\x04")
    terminal.read_until(LEFT)
    assert terminal.end() == 0
    assert terminal.is_as_before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_in_good_order(terminal: Terminal, path: Path, number: signal.Signals) -> None:
    terminal.write(b"tell me\r")
    terminal.read_until(b"slow")
    os.kill(terminal.pid, number)
    terminal.read_until(LEFT)
    assert terminal.end() == 0
    assert terminal.is_as_before
    history = History(path)
    saved = history.latest()
    assert saved
    question, answer = history.messages(saved.id)
    assert question.text == "tell me"
    assert answer.text.startswith("slow")
    assert answer.finish_reason == "cancelled"


def test_a_killed_chat_loses_half_a_second(terminal: Terminal, path: Path) -> None:
    terminal.write(b"tell me\r")
    terminal.read_until(b"slow")
    history = History(path)
    saved = history.latest()
    assert saved
    end = time.monotonic() + 30
    while not history.messages(saved.id)[1].text.startswith("slow slow"):
        assert time.monotonic() < end
        time.sleep(0.05)
    os.kill(terminal.pid, signal.SIGKILL)
    assert terminal.end() == -signal.SIGKILL
    question, answer = history.messages(saved.id)
    history.close()
    assert question.text == "tell me"
    assert answer.text.startswith("slow slow")


def test_suspending_gives_the_terminal_back_and_takes_it_again(terminal: Terminal) -> None:
    terminal.write(b"\x1a")
    terminal.wait_stopped()
    terminal.read_until(LEFT)
    assert terminal.is_as_before
    os.kill(terminal.pid, signal.SIGCONT)
    terminal.read_until(b"rite a message")
    terminal.write(b"\x04")
    assert terminal.end() == 0


def test_a_bracketed_paste_is_a_draft(terminal: Terminal, path: Path) -> None:
    terminal.write(b"\x1b[200~first\rsecond\rthird\r\x1b[201~")
    terminal.read_until(b"third")
    time.sleep(0.2)
    assert History(path).latest() is None


@pytest.mark.parametrize("newline", [b"\n", b"\x1b[13;2u", b"\x1b[13;3u"])
def test_keys_for_a_new_line(terminal: Terminal, path: Path, newline: bytes) -> None:
    terminal.write(b"first" + newline + b"second")
    terminal.read_until(b"second")
    time.sleep(0.1)
    terminal.write(b"\r")
    terminal.read_until(b"slow")
    saved = History(path).latest()
    assert saved
    assert History(path).messages(saved.id)[0].text == "first\nsecond"


def test_no_color_is_honoured(path: Path) -> None:
    terminal = chat(path, NO_COLOR="1", COLORTERM="truecolor")
    terminal.read_until(b"rite a message")
    terminal.write(b"hello\r")
    terminal.read_until(b"slow")
    assert not any(code in terminal.output for code in (b"38;2", b"38;5", b"48;2", b"48;5"))
    terminal.close()


def test_an_idle_chat_writes_now_and_then(path: Path) -> None:
    """Else a load balancer would cut the exec session in which it runs."""
    terminal = chat(path, QUIET="0.3")
    terminal.read_until(b"ready")
    for _ in range(3):
        terminal.read_until(b"ready")
    terminal.close()
