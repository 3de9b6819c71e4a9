"""The real backend with the demo model: it is started, shared, killed, replaced and ended."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_chat.history import History
from tests.support.wait import until
from tests.tui.cli.conftest import PROGRAM, Outcome, run, start

pytestmark = pytest.mark.usefixtures("demo_model", "stopped_after")
SHORT = ("--max-tokens", "8", "-o", "temperature", "0", "-o", "seed", "1")
LONG = ("-o", "ignore_eos", "true", "-o", "temperature", "0")


@pytest.fixture
def stopped_after() -> Iterator[None]:
    """Ends the test's backend, whatever the test did to it."""
    yield
    found = run("status", "--json")
    if found.code == 0:
        for pid in (json.loads(found.out)["pid"], json.loads(found.out)["engine_pid"]):
            if pid:
                os.kill(pid, signal.SIGKILL)


def status() -> dict[str, Any]:
    done = run("status", "--json")
    assert done.code == 0, done
    found: dict[str, Any] = json.loads(done.out)
    return found


def begin(*args: str) -> subprocess.Popen[bytes]:
    """Starts a long answer and returns once a few words of it have come."""
    process = start("ask", *LONG, *args, "Tell me a long story.")
    assert process.stdout is not None
    assert process.stdout.read(20)
    return process


def test_one_backend_serves_one_answer_after_the_other(history: History) -> None:
    first = run("ask", *SHORT, "Say hi.")
    assert (first.code, first.err) == (0, "")
    pid = status()["pid"]
    assert run("ask", *SHORT, "Say hi.") == first
    again = json.loads(run("ask", "-c", *SHORT, "--json", "And again.").out)
    assert again["finish_reason"] in ("length", "stop")
    assert (again["model"], again["seed"]) == ("smollm2:135m", 1)
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert history.conversation(again["conversation_id"]).message_count == 4
    assert status()["pid"] == pid
    assert run("stop") == Outcome(0, b"", "")
    assert run("status").code == 3


def test_front_ends_that_start_together_share_one_backend() -> None:
    processes = [start("ask", *SHORT, "Say hi.") for _ in range(3)]
    answers = [process.communicate(timeout=90) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], answers
    assert len({out for out, _ in answers}) == 1
    servers = subprocess.run(["pgrep", "-f", f"llama_backend.server .*{Path.home()}"], capture_output=True, text=True)
    assert servers.stdout.split() == [str(status()["pid"])]


def test_a_backend_that_was_killed_is_started_again(history: History) -> None:
    run("ask", *SHORT, "Say hi.")
    os.kill(status()["pid"], signal.SIGKILL)
    assert run("ask", *SHORT, "Say hi.").code == 0
    assert [conversation.message_count for conversation in history.conversations()] == [2, 2]


@pytest.mark.parametrize("victim", ["pid", "engine_pid"])
def test_a_kill_in_mid_answer_keeps_what_came(history: History, victim: str) -> None:
    process = begin()
    os.kill(status()[victim], signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode in (1, 3)
    assert re.fullmatch(rb"llama-chat: [^\n]+\n", err)
    assert out.endswith(b"\n")
    answer = history.messages(history.conversations()[0].id)[-1]
    assert answer.finish_reason == "error"
    assert answer.text.strip().endswith(out.decode().strip())
    assert run("ask", *SHORT, "Say hi.").code == 0


def test_an_interrupt_frees_the_slot(history: History) -> None:
    process = begin()
    assert status()["active"] == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")
    until(lambda: status()["active"] == 0, seconds=60)
    answer = history.messages(history.conversations()[0].id)[-1]
    assert (answer.finish_reason, bool(answer.text)) == ("cancelled", True)


def test_a_closed_pipe_frees_the_slot() -> None:
    line = '{ "$@"; echo "code $?" >&2; } | head -c 10'
    command = ["bash", "-c", line, "sh", *PROGRAM, "ask", *LONG, "Tell me a long story."]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert (len(done.stdout), done.stderr) == (10, b"code 141\n")
    until(lambda: status()["active"] == 0, seconds=60)


def test_another_model_replaces_an_idle_backend_only(tmp_path: Path, demo_model: Path) -> None:
    (tmp_path / "other.gguf").symlink_to(demo_model)
    other = str(tmp_path / "other.gguf")
    process = begin()
    busy = run("ask", "-m", other, *SHORT, "Say hi.")
    assert busy.code == 3
    assert re.fullmatch(r"llama-chat: the backend is busy with smollm2:135m[^\n]+\n", busy.err)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    until(lambda: status()["active"] == 0, seconds=60)
    assert run("ask", "-m", other, *SHORT, "Say hi.").code == 0
    assert status()["model"] == "other"


def test_a_prompt_that_does_not_fit(history: History) -> None:
    done = run("ask", "Summarise.", stdin=b"word " * 5000)
    assert (done.code, done.out) == (5, b"")
    assert re.fullmatch(r"llama-chat: [^\n]*\b50\d\d\b[^\n]*\b4096\b[^\n]*\n", done.err)
    assert history.messages(history.conversations()[0].id)[-1].finish_reason == "error"
    assert run("ask", "-c", *SHORT, "Say hi.").code == 0


@pytest.mark.parametrize(
    ("content", "pattern"), [(b"no model at all", "GGUF"), (b"GGUF\x03\0\0\0", ""), (None, "no such file")]
)
def test_a_model_that_cannot_be_had(tmp_path: Path, content: bytes | None, pattern: str) -> None:
    file = tmp_path / "model.gguf"
    if content is not None:
        file.write_bytes(content)
    done = run("ask", "-m", str(file), "hi")
    assert (done.code, done.out) == (4, b"")
    assert re.fullmatch(r"llama-chat: [^\n]+\n", done.err)
    assert pattern in done.err


def test_a_truncated_model(tmp_path: Path, demo_model: Path) -> None:
    file = tmp_path / "model.gguf"
    with demo_model.open("rb") as whole:
        file.write_bytes(whole.read(20_000_000))
    done = run("ask", "-m", str(file), "hi")
    assert (done.code, done.out) == (4, b"")
    assert re.fullmatch(r"llama-chat: [^\n]+\n", done.err)
    assert run("ask", *SHORT, "Say hi.").code == 0


def test_it_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_IDLE_EXIT", "1")
    assert run("ask", *SHORT, "Say hi.").code == 0
    until(lambda: run("status").code == 3, seconds=60)
    assert run("ask", *SHORT, "Say hi.").code == 0


def test_serve_in_the_foreground(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("secret\n")
    options = ("--host", "127.0.0.1", "--port", "18123", "--api-key-file", str(tmp_path / "keys"))
    server = start("serve", *options)
    until(lambda: run("status").code == 0, seconds=60)
    assert run("ask", *SHORT, "Say hi.").code == 0
    elsewhere = ("ask", "--url", "http://127.0.0.1:18123", *SHORT, "Say hi.")
    refused = run(*elsewhere)
    assert (refused.code, "key" in refused.err) == (1, True)
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "secret")
    assert run(*elsewhere).code == 0
    server.send_signal(signal.SIGINT)
    out, _ = server.communicate(timeout=20)
    assert (server.returncode, out) == (0, b"")


def test_serve_beyond_this_machine_needs_a_key() -> None:
    done = run("serve", "--host", "0.0.0.0")
    assert (done.code, done.out) == (2, b"")
    assert re.fullmatch(r"llama-chat: 0\.0\.0\.0 [^\n]+--api-key-file\n", done.err)
