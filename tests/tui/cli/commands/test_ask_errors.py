"""`llama-chat ask` where something is wrong: one line, the exit code, and nothing lost."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from llama_chat.history import History
from tests.support.scripted_server import ScriptedServer
from tests.tui.cli.conftest import PROGRAM, Outcome, fails, run


@pytest.mark.parametrize(
    ("args", "stdin", "pattern"),
    [
        ([], b"", "no prompt"),
        ([""], b" \n\n", "no prompt"),
        ([], b"\x7fELF\x02\x01\x00\x00", "binary"),
        (["what is this?"], b"caf\xe9", "not UTF-8"),
        ([b"caf\xe9"], b"", "not UTF-8"),
        ([b"-s", b"caf\xe9", b"hi"], b"", "system prompt is not UTF-8"),
        (["-o", "heat", "1", "hi"], b"", "'heat' is not one of .*temperature"),
        (["-o", "temperature", "hot", "hi"], b"", "-o temperature: expected float, got 'hot'"),
        (["-o", "temperature", "nan", "hi"], b"", "-o temperature: expected float >= 0"),
        (["-o", "temperature"], b"", "requires 2 arguments"),
        (["--max-tokens", "0", "hi"], b"", "--max-tokens: expected int >= 1, got '0'"),
        (["--frob", "hi"], b"", "No such option.*--frob"),
        (["-c", "--cid", "abc", "hi"], b"", "exclude each other"),
    ],
)
def test_wrong_input_is_named(backend: ScriptedServer, args: list[str | bytes], stdin: bytes, pattern: str) -> None:
    fails(run("ask", *args, stdin=stdin), 2, pattern)
    assert backend.requests == []


def test_a_large_input_is_asked(backend: ScriptedServer) -> None:
    assert run("ask", "count", stdin=b"word " * 1_000_000).code == 0
    assert len(backend.requests[0]["messages"][0]["content"]) == 5_000_007


def test_an_input_beyond_all_measure_fits_no_context(backend: ScriptedServer) -> None:
    with Path("/dev/zero").open("rb") as zeros:
        done = subprocess.run([*PROGRAM, "ask", "hi"], stdin=zeros, capture_output=True)
    fails(Outcome(done.returncode, done.stdout, done.stderr.decode()), 5, "8 MiB")


def test_a_byte_order_mark_is_no_text(backend: ScriptedServer) -> None:
    run("ask", stdin="\ufeffhi".encode())
    assert backend.requests[0]["messages"][0]["content"] == "hi"


WIRE_ERRORS: list[tuple[int, dict[str, Any], int]] = [
    (400, {"message": "field", "code": "invalid_request"}, 2),
    (400, {"message": "5000 tokens, 4096 fit", "code": "context_length_exceeded"}, 5),
    (413, {"message": "large", "code": "request_too_large"}, 5),
    (401, {"message": "key", "code": "invalid_api_key"}, 1),
    (404, {"message": "model", "code": "model_not_found"}, 4),
    (429, {"message": "queue", "code": "queue_full"}, 1),
    (503, {"message": "loading", "code": "unavailable"}, 3),
    (503, {"message": "no GGUF", "code": "model_unreadable"}, 4),
    (500, {"message": "the chat template of the model is broken: line 1", "code": "model_unreadable"}, 4),
    (500, {"message": "fault", "code": "internal_error"}, 1),
]


@pytest.mark.parametrize(("status", "error", "code"), WIRE_ERRORS)
def test_an_error_of_the_backend_has_its_exit_code(
    backend: ScriptedServer, history: History, status: int, error: dict[str, Any], code: int
) -> None:
    backend.enqueue(status=status, error=error)
    fails(run("ask", "hi"), code, error["message"])
    question, answer = history.messages(history.conversations()[0].id)
    assert question.text == "hi"
    assert (answer.text, answer.finish_reason, answer.error) == ("", "error", error["message"])


def test_a_failed_question_is_not_asked_again(backend: ScriptedServer) -> None:
    backend.enqueue(status=400, error={"message": "too long", "code": "context_length_exceeded"})
    run("ask", "a very long question")
    run("ask", "-c", "a short one")
    assert backend.requests[1]["messages"] == [{"role": "user", "content": "a short one"}]


@pytest.mark.parametrize(
    ("how", "code", "pattern"),
    [
        ({"error": {"message": "the engine died", "code": "engine_died"}}, 1, "the engine died"),
        ({"breaks": True}, 3, "broke before the answer was complete"),
    ],
)
def test_an_error_in_mid_answer_keeps_what_came(
    backend: ScriptedServer, history: History, how: dict[str, Any], code: int, pattern: str
) -> None:
    backend.enqueue("half an ", "ans", **how)
    fails(run("ask", "hi"), code, pattern, out=b"half an ans\n")
    answer = history.messages(history.conversations()[0].id)[-1]
    assert (answer.text, answer.finish_reason) == ("half an ans", "error")
    assert answer.error is not None
    assert re.search(pattern, answer.error)


@pytest.mark.parametrize("option", ["--json", "--no-stream"])
def test_an_answer_that_was_to_come_whole_does_not_come_in_part(backend: ScriptedServer, option: str) -> None:
    backend.enqueue("half an ", "ans", breaks=True)
    fails(run("ask", option, "hi"), 3, "broke")


def test_no_backend_at_the_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fails(run("ask", "--url", f"http://127.0.0.1:{port}", "hi"), 3, f"127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "http://[", "nonsense", "http://a b/"])
def test_a_url_that_is_none(url: str) -> None:
    done = run("ask", "--url", url, "hi")
    assert done.code in (2, 3)
    assert len(done.err.splitlines()) == 1
    assert "something went wrong inside" not in done.err


def test_a_history_that_cannot_be_used(backend: ScriptedServer, isolated_home: Path) -> None:
    folder = isolated_home / "data" / "llama-chat"
    folder.mkdir()
    (folder / "history.db").write_text("no database at all, but a file of somebody" * 10)
    fails(run("ask", "hi"), 1, r"history\.db")
    assert run("ask", "-n", "hi").code == 0


def test_no_conversation_to_go_on_with(backend: ScriptedServer) -> None:
    fails(run("ask", "-c", "hi"), 1, "no conversation")
    fails(run("ask", "--cid", "abc", "hi"), 1, "'abc'")


@pytest.mark.parametrize(
    ("redirection", "code", "err"),
    [
        ("<&-", 0, ""),
        (">&-", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        (">/dev/full", 1, "llama-chat: standard output cannot be written: No space left on device\n"),
    ],
)
def test_odd_streams(backend: ScriptedServer, redirection: str, code: int, err: str) -> None:
    line = f'exec "$@" {redirection}'
    done = subprocess.run(["sh", "-c", line, "sh", *PROGRAM, "ask", "hi"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (code, err)


@pytest.mark.parametrize(
    "locale", [{"LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}]
)
def test_any_locale_writes_the_same_bytes(backend: ScriptedServer, locale: dict[str, str]) -> None:
    backend.enqueue("é🦙")
    done = subprocess.run([*PROGRAM, "ask", "hi"], input=b"", capture_output=True, env=os.environ | locale)
    assert (done.returncode, done.stdout, done.stderr) == (0, "é🦙\n".encode(), b"")


def test_a_removed_working_directory(backend: ScriptedServer, tmp_path: Path) -> None:
    line = 'mkdir "$0/gone" && cd "$0/gone" && rmdir "$0/gone" && exec "$@"'
    done = subprocess.run(["sh", "-c", line, str(tmp_path), *PROGRAM, "ask", "hi"], capture_output=True, input=b"")
    assert (done.returncode, done.stdout) == (0, b"Hello, world!\n"), done.stderr


@pytest.mark.parametrize(
    ("given", "pattern"),
    [
        ("nowhere.json", "--schema: nowhere.json: No such file"),
        ("{", "--schema: expected"),
        (".", "--schema: .: Is a directory"),
    ],
)
def test_a_schema_that_is_none_is_named(backend: ScriptedServer, given: str, pattern: str) -> None:
    fails(run("ask", "--schema", given, "hi"), 2, pattern)
    assert backend.requests == []


def test_an_answer_that_is_no_json_has_an_exit_code_of_its_own(backend: ScriptedServer) -> None:
    fails(run("ask", "--schema", '{"type": "object"}', "hi"), 6, "does not satisfy the schema", b"Hello, world!\n")
