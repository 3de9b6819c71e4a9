"""Answers over connections that break at random: each is complete and the same as over a good one."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import aclosing
from pathlib import Path

import pytest

from llama_backend.wire.api import ChatMessage, ChatRequest, Delta
from llama_chat.backends.remote import RemoteConnection
from llama_chat.backends.targets import find_target
from llama_chat.backends.tunnel import Stage, UrlRoad, make_road
from llama_chat.config import Settings
from tests.support import stub_kubectl
from tests.support.flaky_proxy import FlakyProxy
from tests.support.server.harness import ServerProcess, fake_config, free_port, serving
from tests.support.stub_kubectl import Cluster

ANSWERS = 200
AT_ONCE = 10


def question(number: int) -> str:
    """The fake engine answers with the same words, some milliseconds apart."""
    return f"delay=0.002 {number} " + " ".join(f"w{number * word}" for word in range(25))


async def ask(url: str, text: str, places: asyncio.Semaphore, stages: list[Stage]) -> list[Delta]:
    connection = RemoteConnection(Settings(), UrlRoad(url, None), "there")
    connection.listen(lambda stage, _: stages.append(stage))
    request = ChatRequest(messages=[ChatMessage("user", text)])
    async with places, aclosing(connection):
        return [delta async for delta in connection.chat(request)]


@pytest.mark.parametrize("seed", [1])
async def test_no_token_is_lost_or_doubled(tmp_path: Path, seed: int) -> None:
    with serving(fake_config(tmp_path, slots=AT_ONCE, heartbeat=0.05), tmp_path) as server:
        server.wait_state("ready")
        places, stages = asyncio.Semaphore(AT_ONCE), list[Stage]()
        async with FlakyProxy(str(server.config.socket), seed) as proxy:
            questions = [question(number) for number in range(ANSWERS)]
            answers = await asyncio.gather(*(ask(proxy.url, text, places, stages) for text in questions))
        check(server, questions, answers)
    assert proxy.broken > ANSWERS
    assert stages.count("reconnecting") > ANSWERS / 2
    assert stages.count("reached") > ANSWERS / 4


async def test_a_port_forward_that_dies_in_mid_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub_kubectl.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv(stub_kubectl.FOLDER, str(tmp_path))
    config = fake_config(tmp_path, host="127.0.0.1", port=free_port())
    cluster = Cluster(tmp_path, config.port)
    text = "delay=0.02 " + " ".join(f"w{number}" for number in range(100))
    with serving(config, tmp_path) as server:
        server.wait_state("ready")
        target = find_target(Settings(target="kube://chat/llama-chat"))
        assert target is not None
        connection, came = RemoteConnection(Settings(), make_road(target, None), "there"), ""
        killed: list[int] = []
        async with aclosing(connection):
            async for delta in connection.chat(ChatRequest(messages=[ChatMessage("user", text)])):
                came += delta.text
                forward = cluster.forwards[-1]
                if len(killed) < 3 and forward not in killed and f" w{5 * len(killed) + 5} " in came:
                    os.kill(forward, signal.SIGKILL)
                    killed.append(forward)
    assert came == text
    assert cluster.forwards[:-1] == killed
    assert len(killed) == 3


async def test_a_connection_that_is_closed_under_an_answer(tmp_path: Path) -> None:
    """As the chat does when it finds out first that the backend does not answer."""
    text = "delay=0.01 " + " ".join(f"w{number}" for number in range(20))
    with serving(fake_config(tmp_path, host="127.0.0.1", port=free_port()), tmp_path) as server:
        server.wait_state("ready")
        came, connection = "", RemoteConnection(Settings(), UrlRoad(server.url, None), "there")
        async with aclosing(connection):
            async for delta in connection.chat(ChatRequest(messages=[ChatMessage("user", text)])):
                came += delta.text
                if came.endswith(("w5", "w10")):
                    await connection.aclose()
    assert came == text


async def test_stopping_on_purpose_ends_the_work_at_once(tmp_path: Path) -> None:
    with serving(fake_config(tmp_path, host="127.0.0.1", port=free_port()), tmp_path) as server:
        server.wait_state("ready")
        async with aclosing(RemoteConnection(Settings(), UrlRoad(server.url, None), "there")) as connection:
            deltas = connection.chat(ChatRequest(messages=[ChatMessage("user", "words=1000 delay=0.05")]))
            await anext(deltas)
            assert server.status().active == 1
            await deltas.aclose()
            server.wait_idle(1)


def check(server: ServerProcess, questions: list[str], answers: list[list[Delta]]) -> None:
    for text, deltas in zip(questions, answers, strict=True):
        assert "".join(delta.text for delta in deltas) == text
        assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
        usage = [delta.usage for delta in deltas if delta.usage]
        assert [found.completion_tokens for found in usage] == [len(text.split())]
    server.wait_idle()
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log
