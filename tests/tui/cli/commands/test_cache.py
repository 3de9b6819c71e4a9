"""`llama-chat cache`: showing and clearing the KV states of conversations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support.scripted_server import ScriptedServer
from tests.tui.cli.conftest import Outcome, run


@pytest.fixture
def state(isolated_home: Path) -> Path:
    """A file where the local backend keeps states."""
    path = isolated_home / "cache" / "llama-chat" / "kv-states" / ("0" * 32) / "a.kvstate"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(2000))
    return path


def test_show(state: Path) -> None:
    rows = dict(line.split(maxsplit=1) for line in run("cache", "show").out.decode().splitlines())
    assert rows == {"folder": str(state.parents[1]), "states": "1", "size": "2 kB"}
    found = json.loads(run("cache", "show", "--json").out)
    assert found == {"folder": str(state.parents[1]), "states": 1, "bytes": 2000}


def test_clear_without_a_backend(state: Path) -> None:
    assert run("cache", "clear") == Outcome(0, b"", "")
    assert not state.exists()
    assert run("cache", "clear").code == 0


def test_clear_tells_the_backend_too(state: Path, local_backend: ScriptedServer) -> None:
    assert run("cache", "clear").code == 0
    assert local_backend.cleared == 1
    assert not state.exists()


def test_a_conversation_that_is_deleted_leaves_no_state(
    state: Path, local_backend: ScriptedServer, history: History
) -> None:
    assert run("history", "delete", "--yes", history.create(title="It").id).code == 0
    assert local_backend.cleared == 1
    assert not state.exists()
