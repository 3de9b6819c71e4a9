"""What a process has loaded at its end; the static contracts cannot tell a deferred import from an eager one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.scripted_server import ScriptedServer

PROBE = """
import json, os, sys
from llama_chat.cli.group import run
from llama_chat.cli.main import COMMANDS

code = run(COMMANDS, sys.argv[1:])
sys.stdout.flush()
os.write(2, json.dumps([code, sorted(sys.modules)]).encode())
"""
NEVER = {"textual", "rich", "numpy", "llama_cpp", "jinja2", "starlette", "uvicorn", "uvloop", "huggingface_hub"}
HEAVY = {"httpx2", "asyncio", "sqlite3", "tomllib", "importlib.metadata", "subprocess", "logging"}


def loaded(*args: str) -> set[str]:
    """The modules that `llama-chat ARGS` has loaded once it is done."""
    done = subprocess.run([sys.executable, "-c", PROBE, *args], capture_output=True, input=b"")
    code, modules = json.loads(done.stderr)
    assert code == 0, done
    return set(modules)


@pytest.mark.parametrize("args", [["--help"], ["ask", "--help"]])
def test_help_loads_nothing_heavy(args: list[str]) -> None:
    assert loaded(*args) & (NEVER | HEAVY) == set()


@pytest.mark.parametrize(
    "args", [["history", "--help"], ["chat", "--help"], ["serve", "--help"], ["paths"], ["config"], ["history", "list"]]
)
def test_small_commands_load_no_client(args: list[str]) -> None:
    assert loaded(*args) & (NEVER | {"httpx2", "asyncio"}) == set()


def test_ask_loads_neither_the_screen_nor_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer() as backend:
        monkeypatch.setenv("LLAMA_CHAT_URL", backend.url)
        assert loaded("ask", "hi") & NEVER == set()


def test_an_engine_imports_numpy_only_beside_the_loading_of_its_model() -> None:
    """The import takes as long as loading a small model, so `load` has a thread do it meanwhile."""
    program = "import sys, llama_backend.engine.loading; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
