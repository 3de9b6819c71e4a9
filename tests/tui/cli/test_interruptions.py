"""`llama-chat ask` that is broken off: by Ctrl+C, by a closed pipe, by kill -9."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator

import pytest

from llama_chat.history import History, StoredMessage
from tests.support.scripted_server import ScriptedServer
from tests.support.terminal import Terminal
from tests.support.wait import until
from tests.tui.cli.conftest import PROGRAM, open_terminal, start


@pytest.fixture
def slow(backend: ScriptedServer) -> ScriptedServer:
    """A backend whose next answer begins at once and takes a minute."""
    backend.enqueue(*(f"word{number} " for number in range(600)), delay=0.1)
    return backend


@pytest.fixture
def terminal(slow: ScriptedServer) -> Iterator[Terminal]:
    opened = open_terminal("ask", "hi")
    yield opened
    opened.close()


def wait_until_broken_off(backend: ScriptedServer) -> None:
    """The server notices that its client is gone, which frees the slot."""
    until(lambda: backend.broken_off > 0)


def stored(history: History) -> tuple[StoredMessage, StoredMessage]:
    question, answer = history.messages(history.conversations()[0].id)
    return question, answer


def test_ctrl_c_ends_the_answer_and_keeps_what_came(terminal: Terminal, slow: ScriptedServer, history: History) -> None:
    terminal.read_until(b"word3 ")
    terminal.write(b"\x03")
    assert terminal.end() == 130
    assert b"Traceback" not in terminal.written
    assert terminal.written.endswith(b"\r\n")
    wait_until_broken_off(slow)
    question, answer = stored(history)
    assert (question.text, answer.finish_reason, answer.error) == ("hi", "cancelled", None)
    assert answer.text.startswith("word0 word1 word2 word3 ")


@pytest.mark.parametrize("options", [(), ("--no-stream",), ("--json",)])
def test_an_interrupt_in_a_script_is_quiet(slow: ScriptedServer, history: History, options: tuple[str, ...]) -> None:
    process = start("ask", *options, "hi")
    assert process.stdout is not None
    begin = process.stdout.read(6) if not options else b""
    until(lambda: slow.sent >= 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, b"")
    assert bool(begin + out) == (not options)
    wait_until_broken_off(slow)
    assert stored(history)[1].finish_reason == "cancelled"


def test_an_interrupt_before_the_answer(backend: ScriptedServer, history: History) -> None:
    backend.enqueue("late", delay=60)
    process = start("ask", "hi")
    until(lambda: bool(backend.requests))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 130
    assert stored(history)[1].finish_reason == "cancelled"


def test_a_closed_pipe_ends_quietly(slow: ScriptedServer, history: History) -> None:
    process = start("ask", "hi")
    assert process.stdout is not None
    assert process.stdout.read(6) == b"word0 "
    process.stdout.close()
    assert process.wait(30) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    wait_until_broken_off(slow)
    assert stored(history)[1].finish_reason == "cancelled"


def test_a_pipe_that_was_closed_from_the_start(backend: ScriptedServer) -> None:
    line = '{ "$@"; echo "code $?" >&2; } | true'
    done = subprocess.run(
        ["bash", "-c", line, "sh", *PROGRAM, "ask", "hi"], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert (done.stdout, done.stderr) == (b"", b"code 141\n")


def test_kill_loses_neither_the_question_nor_what_came(slow: ScriptedServer, history: History) -> None:
    process = start("ask", "hi")
    assert process.stdout is not None
    seen = process.stdout.read(len(b"word0 " * 3))
    until(lambda: stored(history)[1].text.startswith(seen.decode()))
    process.kill()
    process.communicate()
    wait_until_broken_off(slow)
    question, answer = stored(history)
    assert (question.text, answer.finish_reason) == ("hi", None)
    assert answer.text.startswith(seen.decode())


def test_kill_before_the_answer_keeps_the_question(backend: ScriptedServer, history: History) -> None:
    backend.enqueue("late", delay=60)
    process = start("ask", "hi")
    until(lambda: bool(backend.requests))
    process.kill()
    process.communicate()
    question, answer = stored(history)
    assert (question.text, answer.text, answer.finish_reason) == ("hi", "", None)


def test_a_terminal_gets_no_control_characters(backend: ScriptedServer) -> None:
    backend.enqueue("\x1b]0;title\x07\x1b[31mred", "\x9b2J\rline\n\ttab", finish_reason="length")
    terminal = open_terminal("ask", "hi")
    assert terminal.end() == 0
    terminal.close()
    answer = "␛]0;title␇␛[31mred�2J\r\nline\r\n\ttab\r\n".encode()
    assert terminal.written == answer + b"llama-chat: the answer was cut off at its limit of tokens\r\n"


def test_waiting_is_shown_on_a_terminal_only(backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    backend.enqueue("late", delay=1.5)
    terminal = open_terminal("ask", "hi")
    assert terminal.end() == 0
    terminal.close()
    assert "\rwaiting for the model …\x1b[K\r\x1b[Klate".encode() in terminal.written


@pytest.mark.parametrize("setting", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_dumb_terminal_gets_plain_text(
    backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    terminal = open_terminal("ask", "hi")
    assert terminal.end() == 0
    terminal.close()
    assert terminal.written == b"Hello, world!\r\n"


def test_ask_without_a_prompt_does_not_wait_for_typing() -> None:
    terminal = open_terminal("ask")
    assert terminal.end() == 2
    terminal.close()
    assert b"no prompt" in terminal.written


def test_an_interrupt_that_the_caller_ignores_is_ignored(backend: ScriptedServer) -> None:
    """As for a command that a script runs in the background."""
    backend.enqueue("one ", "two", delay=0.5)
    line = 'trap "" INT; exec "$@"'
    command = ["sh", "-c", line, "sh", *PROGRAM, "ask", "hi"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        until(lambda: bool(backend.requests))
        process.send_signal(signal.SIGINT)
        assert process.communicate()[0] == b"one two\n"
    assert process.returncode == 0
