"""The small commands: help, models, status, stop, paths, config, and what `llama-chat` alone does."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from llama_chat.cli import group
from llama_chat.cli.main import COMMANDS
from tests.support.scripted_server import ScriptedServer
from tests.tui.cli.conftest import PROGRAM, Outcome, open_terminal

Run = Callable[..., Outcome]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line inside this process, which is faster."""

    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))

    def run(*args: str) -> Outcome:
        code = group.run(COMMANDS, list(args))
        out, err = capfd.readouterr()
        return Outcome(code, out.encode(), err)

    return run


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help(call: Run, name: str) -> None:
    command = importlib.import_module(f"llama_chat.cli.commands.{name}").command
    assert isinstance(command, click.Command)
    assert command.name == name
    assert call(name, "--help").code == 0
    assert COMMANDS[name].endswith(".")


def test_the_help_lists_the_commands(call: Run) -> None:
    for option in ("--help", "-h"):
        done = call(option)
        assert done.code == 0
        for name, line in COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(line)}$", done.out.decode(), re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "example"),
    [
        (["ask"], "LLAMA_CHAT_MODEL for --model"),
        (["serve"], "LLAMA_CHAT_MODEL for --model"),
        (["pull"], "LLAMA_CHAT_QUANT for --quant"),
        (["history", "list"], "LLAMA_CHAT_LIMIT for --limit"),
    ],
)
def test_help_explains_the_environment_once(call: Run, command: list[str], example: str) -> None:
    text = " ".join(call(*command, "--help").out.decode().split())
    assert text.endswith(f"Each option has an environment variable too: {example}, and so on.")
    assert text.count("environment variable") == 1


def test_help_of_a_command_without_variables_names_none(call: Run) -> None:
    assert "LLAMA_CHAT" not in call("history", "delete", "--help").out.decode()


def test_the_version(call: Run) -> None:
    assert re.fullmatch(rb"llama-chat \d+\.\d+\.\d+\n", call("--version").out)


@pytest.mark.parametrize("args", [["frob"], ["ask", "--frob"], ["history", "frob"], ["serve", "extra"]])
def test_a_command_line_that_is_wrong(call: Run, args: list[str]) -> None:
    done = call(*args)
    assert (done.code, done.out) == (2, b"")
    assert re.fullmatch(r"llama-chat: [^\n]+\n", done.err)


def test_a_fault_of_ours_is_one_line(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("llama_chat.cli.options.load", fails)
    done = call("paths")
    assert (done.code, done.out) == (1, b"")
    assert done.err == "llama-chat: an error inside llama-chat: RuntimeError: first; LLAMA_CHAT_DEBUG=1 shows where\n"
    monkeypatch.setenv("LLAMA_CHAT_DEBUG", "1")
    assert "Traceback" in call("paths").err


def test_paths(call: Run, isolated_home: Path) -> None:
    lines = call("paths").out.decode().splitlines()
    assert lines[0].split() == ["config", str(isolated_home / "config" / "llama-chat" / "config.toml")]
    found = json.loads(call("paths", "--json").out)
    assert found["socket"] == str(isolated_home / "runtime" / "llama-chat" / "backend.sock")
    assert list(found) == [line.split()[0] for line in lines]


def test_the_models_folder_can_be_set(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_MODELS_DIR", "~/weights")
    assert json.loads(call("paths", "--json").out)["models"] == str(Path.home() / "weights")


def test_config(call: Run, isolated_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = isolated_home / "config" / "llama-chat" / "config.toml"
    file.parent.mkdir()
    file.write_text('system = "Be\\nbrief."\nparallel = 2\n')
    monkeypatch.setenv("LLAMA_CHAT_PARALLEL", "3")
    found = json.loads(call("config", "--json").out)
    assert found["system"] == {
        "value": "Be\nbrief.",
        "source": str(file),
        "default": None,
        "meaning": "System prompt of a new conversation",
    }
    assert (found["parallel"]["value"], found["parallel"]["source"]) == (3, "LLAMA_CHAT_PARALLEL")
    assert (found["port"]["value"], found["port"]["source"], found["port"]["default"]) == (8080, "default", "8080")
    rows = [re.split(r"\s{2,}", line) for line in call("config").out.decode().splitlines()]
    assert ["system", r"'Be\nbrief.'", str(file)] in rows
    assert ["threads", "(chosen and adjusted while running)", "default"] in rows
    assert len(rows) == len(found) + 1


def test_a_wrong_setting_stops_every_command(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_PORT", "http")
    for command in (["paths"], ["config"], ["models"], ["status"], ["history", "list"], ["ask", "hi"]):
        done = call(*command)
        assert (done.code, done.err) == (2, "llama-chat: LLAMA_CHAT_PORT: expected int, got 'http'\n")


def test_installed_models(call: Run, isolated_home: Path, demo_model: Path) -> None:
    folder = isolated_home / "data" / "llama-chat" / "models"
    folder.mkdir(parents=True)
    (folder / "mine.gguf").symlink_to(demo_model)
    (folder / "broken.gguf").write_text("no model")
    found = {model["name"]: model for model in json.loads(call("models", "--json").out)}
    assert set(found) == {"mine", "broken", "smollm2:135m"}
    assert found["mine"]["architecture"] == "llama"
    assert found["mine"]["context"] == 8192
    assert "GGUF" in found["broken"]["error"]
    lines = call("models").out.decode().splitlines()
    assert re.search(r"mine +98\.4 MB +Q4_1 +8192 +llama", "\n".join(lines))
    assert len(lines) == 4


def test_no_model_at_all(call: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_backend.models.installed.demo_model", lambda: None)
    done = call("models")
    assert (done.code, done.out) == (0, b"")
    assert "no model is installed in" in done.err
    done = call("ask", "hi")
    assert done.code == 4
    assert re.fullmatch(r"llama-chat: no model is installed [^\n]+\n", done.err)


def test_models_elsewhere(call: Run, backend: ScriptedServer) -> None:
    assert json.loads(call("models", "--json").out)[0]["name"] == "scripted"
    assert re.search(rb"scripted +92 MB +Q4_1 +4096 +llama", call("models").out)


def test_status_and_stop_without_a_backend(call: Run, isolated_home: Path) -> None:
    done = call("status")
    assert (done.code, done.out) == (3, b"")
    assert "no backend is running" in done.err
    assert call("stop") == Outcome(0, b"", "llama-chat: no backend was running\n")
    assert not (isolated_home / "runtime" / "llama-chat").exists()


def test_status_of_the_local_backend(call: Run, local_backend: ScriptedServer) -> None:
    facts = dict(re.split(r"\s{2,}", line) for line in call("status").out.decode().splitlines())
    assert facts["state"] == "ready"
    assert facts["model"] == "scripted"
    assert facts["address"] == str(local_backend.path)
    assert facts["log"] == "/nowhere/backend.log"
    assert (facts["uptime"], facts["memory"], facts["context"]) == ("1 min", "250 MB", "4096 tokens")
    assert facts["KV states"] == "2: 0 B of 1 kB in RAM, 46.1 MB of 2.0 GB on disk"
    assert json.loads(call("status", "--json").out)["rss"] == 250_000_000


def test_status_elsewhere(call: Run, backend: ScriptedServer) -> None:
    assert json.loads(call("status", "--json").out)["address"] == backend.url


def test_status_of_another_kind_of_server(call: Run) -> None:
    with ScriptedServer(has_status=False) as backend:
        done = call("status", "--url", backend.url)
    assert (done.code, done.out) == (1, b"")
    assert re.fullmatch(r"llama-chat: the server at http://127[^\n]+\n", done.err)


def test_alone_without_a_terminal_it_answers_standard_input(backend: ScriptedServer) -> None:
    done = subprocess.run([*PROGRAM], input=b"hi\n", capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"Hello, world!\n", b"")
    assert backend.requests[0]["messages"] == [{"role": "user", "content": "hi"}]


def test_alone_without_terminal_and_input_it_says_so(backend: ScriptedServer) -> None:
    done = subprocess.run([*PROGRAM, "-s", "Be brief."], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "llama-chat: no prompt; give one as an argument or on standard input\n"


def test_the_chat_does_not_go_into_a_file(backend: ScriptedServer, tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        terminal = open_terminal(stdout=file.fileno())
        assert terminal.end() == 2
        terminal.close()
    assert (tmp_path / "out").read_bytes() == b""
    assert b"needs a terminal" in terminal.written


@pytest.mark.parametrize(
    ("words", "found"), [("llama-chat s", ["serve", "status", "stop"]), ("llama-chat ask --st", ["--stream"])]
)
def test_the_shell_completes(words: str, found: list[str]) -> None:
    variables = {
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
        "_LLAMA_CHAT_COMPLETE": "bash_complete",
    }
    done = subprocess.run([*PROGRAM], env=os.environ | variables, capture_output=True, text=True)
    assert [line.split(",")[1] for line in done.stdout.splitlines()] == found
