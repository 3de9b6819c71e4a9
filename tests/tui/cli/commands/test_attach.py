"""`llama-chat attach`, and the same targets for other commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support import stub_kubectl
from tests.support.scripted_server import ScriptedServer
from tests.support.stub_kubectl import Cluster
from tests.tui.cli.conftest import fails, open_terminal, run


@pytest.fixture
def elsewhere() -> Iterator[ScriptedServer]:
    with ScriptedServer() as backend:
        yield backend


@pytest.fixture
def config(isolated_home: Path) -> Path:
    folder = isolated_home / "config" / "llama-chat"
    folder.mkdir()
    return folder / "config.toml"


def test_the_chat_opens_on_a_backend_elsewhere(elsewhere: ScriptedServer) -> None:
    terminal = open_terminal("attach", elsewhere.url)
    try:
        terminal.read_until(b"ready")
        terminal.write(b"hi\r")
        terminal.read_until(b"world!")
        terminal.write(b"\x11")
        assert terminal.end() == 0
    finally:
        terminal.close()
    assert elsewhere.requests[0]["messages"][-1]["content"] == "hi"


def test_ask_knows_the_same_targets(
    elsewhere: ScriptedServer, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("of-the-file\n")
    config.write_text(f'[targets.work]\nurl = "{elsewhere.url}"\nkey_file = "{tmp_path / "key"}"\n')
    assert run("ask", "--target", "work", "hi").out == b"Hello, world!\n"
    assert elsewhere.keys == ["Bearer of-the-file"]
    assert json.loads(run("status", "--target", "work", "--json").out)["address"] == elsewhere.url
    assert json.loads(run("models", "--target", "work", "--json").out)[0]["name"] == "scripted"


def test_an_option_beats_what_a_file_names(elsewhere: ScriptedServer, config: Path) -> None:
    config.write_text('target = "work"\n[targets.work]\nurl = "http://127.0.0.1:9"\n')
    assert run("ask", "--url", elsewhere.url, "hi").code == 0
    fails(run("ask", "hi"), 3, "127.0.0.1:9")
    fails(run("ask", "--url", elsewhere.url, "--target", "work", "hi"), 2, "name the same thing")


def test_standard_input_is_answered_from_elsewhere(elsewhere: ScriptedServer) -> None:
    assert run("attach", elsewhere.url, stdin=b"hi").out == b"Hello, world!\n"


def test_a_service_in_a_cluster(elsewhere: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_kubectl.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv(stub_kubectl.FOLDER, str(tmp_path))
    cluster = Cluster(tmp_path, urlsplit(elsewhere.url).port or 0)
    assert run("ask", "--target", "kube://chat/llama-chat", "hi").out == b"Hello, world!\n"
    cluster.set(complaint='Error from server (NotFound): services "llama-chat" not found')
    fails(run("ask", "--target", "kube://chat/llama-chat", "hi"), 3, "not found")


@pytest.mark.parametrize("target", ["nosuch", "kube://x", "https://:sk-123@host", "https://host/?key=sk-123"])
def test_a_target_that_is_none(target: str) -> None:
    done = run("ask", "--target", target, "hi")
    fails(done, 2, ".")
    assert "sk-123" not in done.err
