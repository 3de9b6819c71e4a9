"""`llama-chat ask`: what it sends and what it writes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support.scripted_server import Script, ScriptedServer
from tests.tui.cli.conftest import Outcome, run, start


def test_standard_output_is_the_answer_and_nothing_else(backend: ScriptedServer) -> None:
    assert run("ask", "hi") == Outcome(0, b"Hello, world!\n", "")
    assert backend.requests[0]["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
@pytest.mark.parametrize(
    ("pieces", "written"),
    [
        (["a"], "a\n"),
        (["a\n"], "a\n"),
        (["a\n", "\n", "\nb", "\n\n"], "a\n\n\nb\n"),
        (["\n", "a"], "\na\n"),
        ([], "\n"),
        (["\n", "\n"], "\n"),
        (["é🦙", "\x1b[31mred\x1b[0m\r\n"], "é🦙\x1b[31mred\x1b[0m\r\n"),
    ],
)
def test_the_answer_ends_with_one_newline(
    backend: ScriptedServer, stream: str, pieces: list[str], written: str
) -> None:
    backend.enqueue(*pieces)
    assert run("ask", stream, "hi") == Outcome(0, written.encode(), "")


def writes(process: subprocess.Popen[bytes]) -> list[bytes]:
    """What the process writes, by its write calls as far as they can be told apart."""
    assert process.stdout is not None
    file = process.stdout.fileno()
    parts = list(iter(lambda: os.read(file, 100), b""))
    process.communicate()
    return parts


def test_the_answer_comes_as_it_is_written(backend: ScriptedServer) -> None:
    backend.enqueue("one ", "two", delay=1.0)
    assert writes(start("ask", "hi"))[0] == b"one "


def test_without_streaming_it_comes_whole(backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_STREAM", "false")
    backend.enqueue("one ", "two", delay=0.2)
    assert writes(start("ask", "hi"))[0].rstrip(b"\n") == b"one two"


def test_json_has_all_facts(backend: ScriptedServer, history: History) -> None:
    done = run("ask", "--json", "hi")
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    assert facts["answer"] == "Hello, world!"
    assert facts["finish_reason"] == "stop"
    assert facts["model"] == "scripted"
    assert facts["seed"] == 7
    assert facts["usage"]["prompt_tokens"] == 11
    assert facts["usage"]["completion_tokens"] == 4
    assert facts["timings"]["predicted_n"] == 4
    assert history.conversation(facts["conversation_id"]).title == "hi"


def test_json_without_a_log_has_no_conversation(backend: ScriptedServer) -> None:
    assert json.loads(run("ask", "-n", "--json", "hi").out)["conversation_id"] is None


def test_options_reach_the_request(backend: ScriptedServer) -> None:
    done = run(
        *("ask", "-m", "other", "-s", "Be brief.", "--max-tokens", "9", "-o", "temperature", "0.5", "-o", "seed", "1"),
        *("-o", "stop", "END", "-o", "stop", "\n", "-o", "logit_bias", '{"5": -100}', "what", "is", "it?"),
    )
    assert done.code == 0
    request = backend.requests[0]
    assert request["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "what is it?"},
    ]
    sent = {name: request[name] for name in ("model", "max_tokens", "temperature", "seed", "stop", "logit_bias")}
    assert sent == {
        "model": "other",
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 1,
        "stop": ["END", "\n"],
        "logit_bias": {"5": -100.0},
    }


def test_settings_reach_the_request(backend: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".llama-chat.toml").write_text('system = "From the project."\ntop_k = 3\ntop_p = 0.5\n')
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    monkeypatch.setenv("LLAMA_CHAT_TOP_K", "5")
    assert run("ask", "-o", "top_p", "0.9", "hi").code == 0
    request = backend.requests[0]
    assert request["messages"][0] == {"role": "system", "content": "From the project."}
    assert (request["top_k"], request["top_p"]) == (5, 0.9)


def test_standard_input_comes_before_the_prompt(backend: ScriptedServer) -> None:
    run("ask", "Translate this.", stdin=b"\n  Bonjour\n  monde\n\n")
    run("ask", stdin=b"Only this.\r\n")
    sent = [request["messages"][-1]["content"] for request in backend.requests]
    assert sent == ["\n  Bonjour\n  monde\n\nTranslate this.", "Only this."]


def test_a_conversation_goes_on(backend: ScriptedServer, history: History) -> None:
    backend.enqueue("first answer")
    run("ask", "-s", "Be brief.", "first")
    (first,) = history.conversations()
    run("ask", "another")
    backend.enqueue("second answer")
    run("ask", "--cid", first.id[:6], "second")
    run("ask", "-c", "third")
    sent = [(message["role"], message["content"]) for message in backend.requests[-1]["messages"]]
    assert sent == [
        ("system", "Be brief."),
        ("user", "first"),
        ("assistant", "first answer"),
        ("user", "second"),
        ("assistant", "second answer"),
        ("user", "third"),
    ]
    assert history.conversation(first.id).message_count == 6
    assert len(history.conversations()) == 2


def test_a_conversation_goes_on_without_a_log(backend: ScriptedServer, history: History) -> None:
    run("ask", "first")
    run("ask", "-n", "-c", "second")
    assert len(backend.requests[1]["messages"]) == 3
    assert [conversation.message_count for conversation in history.conversations()] == [2]


def test_without_a_log_nothing_is_written(backend: ScriptedServer, isolated_home: Path) -> None:
    assert run("ask", "-n", "hi").code == 0
    assert not (isolated_home / "data" / "llama-chat").exists()


def test_what_came_is_in_the_history(backend: ScriptedServer, history: History) -> None:
    run("ask", "hi")
    question, answer = history.messages(history.conversations()[0].id)
    assert (question.role, question.text) == ("user", "hi")
    assert (answer.role, answer.text, answer.finish_reason) == ("assistant", "Hello, world!", "stop")
    assert (answer.model, answer.seed) == ("scripted", 7)
    assert (answer.prompt_tokens, answer.completion_tokens, answer.cached_tokens) == (11, 4, 3)


def test_an_answer_at_its_limit_is_an_answer(backend: ScriptedServer, history: History) -> None:
    backend.enqueue("cut", finish_reason="length")
    assert run("ask", "hi") == Outcome(0, b"cut\n", "")
    assert history.messages(history.conversations()[0].id)[-1].finish_reason == "length"


def test_the_key_comes_from_the_environment(backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "secret")
    run("ask", "hi")
    assert backend.keys == ["Bearer secret"]


def test_the_key_comes_from_a_file(backend: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("first\nsecond\n")
    monkeypatch.setenv("LLAMA_CHAT_API_KEY_FILE", str(tmp_path / "keys"))
    run("ask", "hi")
    assert backend.keys == ["Bearer first"]


def test_the_local_backend_is_found(local_backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "secret")
    assert run("ask", "hi") == Outcome(0, b"Hello, world!\n", "")
    assert local_backend.keys == [None]


@pytest.mark.parametrize("how", ["text", "file"])
def test_a_schema_is_sent_as_every_server_knows_it(backend: ScriptedServer, tmp_path: Path, how: str) -> None:
    backend.scripts.append(Script(pieces=('{"a"', ": 1}")))
    schema = '{"type": "object"}'
    file = tmp_path / "schema.json"
    file.write_text(schema)
    done = run("ask", "--schema", schema if how == "text" else str(file), "hi")
    assert (done.code, done.out) == (0, b'{"a": 1}\n')
    sent = backend.requests[0]["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    assert "json_schema" not in backend.requests[0]


def test_samplers_and_a_grammar_are_options(backend: ScriptedServer) -> None:
    pairs = {"dry_multiplier": "0.8", "mirostat": "2", "grammar": "root ::= [a]", "dry_sequence_breakers": '["x"]'}
    run("ask", *(word for pair in pairs.items() for word in ("-o", *pair)), "hi")
    sent = {name: backend.requests[0][name] for name in pairs}
    assert sent == {"dry_multiplier": 0.8, "mirostat": 2, "grammar": "root ::= [a]", "dry_sequence_breakers": ["x"]}
