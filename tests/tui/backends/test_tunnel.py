"""A Service in a cluster, through port-forwards that may die."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llama_backend.errors import PodPending, Unreachable
from llama_chat.backends.tunnel import Stage
from llama_chat.errors import KubeError
from tests.support import stub_kubectl
from tests.support.attaching import answer, attach
from tests.support.scripted_server import ScriptedServer
from tests.support.server.harness import runs
from tests.support.stub_kubectl import Cluster
from tests.support.wait import until


@pytest.fixture
def cluster(tmp_path: Path, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    stub_kubectl.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv(stub_kubectl.FOLDER, str(tmp_path))
    return Cluster(tmp_path, urlsplit(server.url).port or 0)


async def test_a_service_is_reached_by_a_port_forward(cluster: Cluster) -> None:
    async with aclosing(attach("kube://chat/llama-chat?context=prod")) as backend:
        assert await answer(backend) == "Hello, world!"
        assert await answer(backend) == "Hello, world!"
        [running] = cluster.forwards
        assert runs(running)
    assert not runs(running)
    base = ["--context", "prod", "--namespace", "chat"]
    ask, forward = cluster.calls
    assert ask == [*base, "get", "service", "llama-chat", "--output", "json"]
    assert (forward[:5], forward[-2:]) == ([*base, "port-forward"], ["service/llama-chat", ":8080"])


async def test_a_port_forward_that_dies_is_started_again(cluster: Cluster) -> None:
    async with aclosing(attach("kube://chat/llama-chat:8080")) as backend:
        await answer(backend)
        os.kill(cluster.forwards[-1], signal.SIGKILL)
        assert await answer(backend) == "Hello, world!"
        assert len(cluster.forwards) == 2


async def test_the_key_comes_from_the_secret(
    cluster: Cluster, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.set(secret=base64.b64encode(b"# keys\nfrom-the-Secret name=alice\n").decode())
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "general")
    async with aclosing(attach("kube://chat/llama-chat:80?secret=api/keys.txt")) as backend:
        await answer(backend)
    assert server.keys == ["Bearer from-the-Secret"]
    assert cluster.calls[0][2:] == ["get", "secret", "api", "--output", r"jsonpath={.data.keys\.txt}"]
    assert "from-the-Secret" not in str(cluster.calls)
    assert "KEY IN ENVIRONMENT" not in str(cluster.calls)


async def test_a_secret_that_may_not_be_read(
    cluster: Cluster, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aclosing(attach("kube://chat/llama-chat:80?secret=keys")) as backend:
        with pytest.raises(KubeError, match="forbidden"):
            await answer(backend)
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "general")
    async with aclosing(attach("kube://chat/llama-chat:80?secret=keys")) as backend:
        await answer(backend)
    assert server.keys == ["Bearer general"]


async def test_a_pod_that_is_pending_is_waited_for(cluster: Cluster) -> None:
    cluster.set(pending=2)
    async with aclosing(attach("kube://chat/llama-chat:80")) as backend:
        with pytest.raises(PodPending, match="Pending"):
            await backend.status()
        stages: list[Stage] = []
        backend.report_stages(lambda stage, _: stages.append(stage))
        assert await answer(backend) == "Hello, world!"
    assert "waiting for a pod" in stages
    assert "reconnecting" not in stages


@pytest.mark.parametrize(
    ("complaint", "error"),
    [
        ('Error from server (NotFound): services "x" not found', KubeError),
        ('Error from server (Forbidden): pods is forbidden: User "u" cannot create pods/portforward', KubeError),
        ('error: context "prod" does not exist', KubeError),
        ("error: You must be logged in to the server (Unauthorized)", KubeError),
        ("The connection to the server 10.0.0.1:6443 was refused", Unreachable),
        ("error: timed out waiting for the condition", PodPending),
        ("", Unreachable),
    ],
)
async def test_what_kubectl_complains_about(cluster: Cluster, complaint: str, error: type[Exception]) -> None:
    cluster.set(complaint=complaint or "\n")
    async with aclosing(attach("kube://chat/llama-chat")) as backend:
        with pytest.raises(error) as caught:
            await backend.status()
    assert type(caught.value) is error


async def test_without_kubectl(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    async with aclosing(attach("kube://chat/llama-chat")) as backend:
        with pytest.raises(KubeError, match="not on PATH"):
            await backend.status()


def test_a_port_forward_ends_with_a_killed_front_end(cluster: Cluster) -> None:
    """Nobody is left to close it, and an open port would stay behind."""
    program = (
        "import asyncio, tests.support.attaching as t\n"
        "async def main():\n"
        "    await t.attach('kube://chat/llama-chat').status()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    front = subprocess.Popen([sys.executable, "-c", program])
    try:
        until(lambda: bool(cluster.forwards), what="the port-forward")
    finally:
        front.kill()
        front.wait()
    until(lambda: not runs(cluster.forwards[-1]), what="its end")
