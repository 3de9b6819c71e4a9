"""Other kinds of servers: features that they do not have are left out."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.scripted_server import ScriptedServer
from tests.support.server.harness import free_port
from tests.support.wait import until
from tests.tui.cli.conftest import open_terminal, run

REFERENCE = os.environ.get("LLAMA_REFERENCE")
"""A folder with llama.cpp's own programs."""


@pytest.fixture
def vllm() -> Iterator[str]:
    with ScriptedServer(is_other_kind=True) as backend:
        yield backend.url


@pytest.fixture
def llama_server(demo_model: Path, tmp_path: Path) -> Iterator[str]:
    port = free_port()
    command = [f"{REFERENCE}/llama-server", "--model", str(demo_model), "--ctx-size", "512", "--threads", "1"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: _is_ready(url), 60, "the model")
        yield url
    finally:
        server.kill()
        server.wait()


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


def test_ask_a_server_like_vllm(vllm: str) -> None:
    facts = json.loads(run("ask", "--url", vllm, "--json", "hi").out)
    assert (facts["answer"], facts["finish_reason"], facts["seed"]) == ("Hello, world!", "stop", None)
    assert facts["timings"] is None
    assert facts["usage"]["completion_tokens"] == 4


def test_chat_on_a_server_like_vllm(vllm: str) -> None:
    chat_on(vllm, "hi", "world!")


def test_its_models(vllm: str) -> None:
    assert json.loads(run("models", "--url", vllm, "--json").out)[0]["name"] == "scripted"


@pytest.mark.skipif(REFERENCE is None, reason="needs LLAMA_REFERENCE, a folder with llama.cpp's own programs")
def test_llama_server(llama_server: str) -> None:
    done = run("ask", "--url", f"{llama_server}/v1", "--json", "--max-tokens", "8", "-o", "seed", "1", "Say hello.")
    facts = json.loads(done.out)
    assert facts["answer"]
    assert facts["usage"]["completion_tokens"] <= 8
    assert json.loads(run("models", "--url", llama_server, "--json").out)
    chat_on(llama_server, "Repeat: banana", "tok/s")


def chat_on(url: str, question: str, answer: str) -> None:
    """Asks in the chat; nothing on the screen complains."""
    terminal = open_terminal("attach", "--max-tokens", "8", url)
    try:
        terminal.read_until(b"Write a message")
        terminal.write(question.encode() + b"\r")
        terminal.read_until(answer.encode())
        terminal.write(b"\x11")
        assert terminal.end() == 0
    finally:
        terminal.close()
    assert not any(word in terminal.written for word in (b"failed", "✗".encode(), b"restarting", b"reconnecting"))
