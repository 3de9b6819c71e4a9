"""The connection to a backend elsewhere: by a URL, and through port-forwards that die."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llama_backend.client.http_client import Address
from llama_backend.errors import ModelNotFound, PodPending, Unreachable
from llama_backend.wire.api import ChatMessage, ChatRequest
from llama_chat.backends.remote import RemoteConnection
from llama_chat.backends.targets import find_target
from llama_chat.backends.tunnel import Stage, Tell, UrlRoad, make_road
from llama_chat.config import Settings
from llama_chat.errors import KubeError
from tests.support import stub_kubectl
from tests.support.scripted_server import MODEL, ScriptedServer
from tests.support.server.harness import runs
from tests.support.stub_kubectl import Cluster
from tests.support.wait import until

REQUEST = ChatRequest(model=MODEL, messages=[ChatMessage("user", "hi")])


@pytest.fixture
def backend() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        yield scripted


@pytest.fixture
def cluster(tmp_path: Path, backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    stub_kubectl.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv(stub_kubectl.FOLDER, str(tmp_path))
    return Cluster(tmp_path, urlsplit(backend.url).port or 0)


def connect(url: str, **settings: str) -> RemoteConnection:
    chosen = Settings(target=url, **settings)  # type: ignore[arg-type]
    target = find_target(chosen)
    assert target is not None
    return RemoteConnection(chosen, make_road(target, chosen.api_key_file), target.name)


async def answer(connection: RemoteConnection) -> str:
    return "".join([delta.text async for delta in connection.chat(REQUEST)])


async def test_a_backend_that_never_answered_is_not_waited_for() -> None:
    async with aclosing(connect("http://127.0.0.1:9")) as connection:
        with pytest.raises(Unreachable, match="127"):
            await answer(connection)


async def test_a_model_that_is_not_there_is_not_asked_again(backend: ScriptedServer) -> None:
    backend.enqueue(status=404, error={"message": "no such model", "code": "model_not_found"})
    async with aclosing(connect(backend.url)) as connection:
        with pytest.raises(ModelNotFound):
            await answer(connection)
    assert len(backend.requests) == 1


async def test_the_key_goes_along(backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "a key")
    async with aclosing(connect(backend.url)) as connection:
        assert await answer(connection) == "Hello, world!"
    assert backend.keys == ["Bearer a key"]


async def test_a_backend_elsewhere_keeps_the_states_of_others(backend: ScriptedServer) -> None:
    async with aclosing(connect(backend.url)) as connection:
        await connection.clear_kv_states()
        await connection.status()
    assert backend.cleared == 0


async def test_a_connection_that_breaks_before_the_answer_is_made_again(backend: ScriptedServer) -> None:
    backend.enqueue(breaks=True)
    stages: list[Stage] = []
    async with aclosing(connect(backend.url)) as connection:
        connection.listen(lambda stage, _: stages.append(stage))
        assert await answer(connection) == "Hello, world!"
    assert len(backend.requests) == 2
    assert (stages[0], stages[-1]) == ("connecting", "reached")


async def test_a_backend_that_was_there_is_waited_for(backend: ScriptedServer) -> None:
    class Moving(UrlRoad):
        """Leads nowhere when it is opened for the second time."""

        opened = 0

        async def open(self, tell: Tell) -> tuple[Address, str | None]:
            self.opened += 1
            self._url = "http://127.0.0.1:9" if self.opened == 2 else backend.url
            return await super().open(tell)

    async with aclosing(RemoteConnection(Settings(), Moving(backend.url, None), "h")) as connection:
        await connection.status()
        await connection.aclose()
        assert await answer(connection) == "Hello, world!"


async def test_a_service_is_reached_by_a_port_forward(cluster: Cluster) -> None:
    async with aclosing(connect("kube://chat/llama-chat?context=prod")) as connection:
        assert await answer(connection) == "Hello, world!"
        assert await answer(connection) == "Hello, world!"
        [running] = cluster.forwards
        assert runs(running)
    assert not runs(running)
    base = ["--context", "prod", "--namespace", "chat"]
    ask, forward = cluster.calls
    assert ask == [*base, "get", "service", "llama-chat", "--output", "json"]
    assert (forward[:5], forward[-2:]) == ([*base, "port-forward"], ["service/llama-chat", ":8080"])


async def test_a_port_forward_that_dies_is_started_again(cluster: Cluster) -> None:
    async with aclosing(connect("kube://chat/llama-chat:8080")) as connection:
        await answer(connection)
        os.kill(cluster.forwards[-1], signal.SIGKILL)
        assert await answer(connection) == "Hello, world!"
        assert len(cluster.forwards) == 2


async def test_the_key_comes_from_the_secret(
    cluster: Cluster, backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.set(secret=base64.b64encode(b"# keys\nfrom-the-Secret name=alice\n").decode())
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "general")
    async with aclosing(connect("kube://chat/llama-chat:80?secret=api/keys.txt")) as connection:
        await answer(connection)
    assert backend.keys == ["Bearer from-the-Secret"]
    assert cluster.calls[0][2:] == ["get", "secret", "api", "--output", r"jsonpath={.data.keys\.txt}"]
    assert "from-the-Secret" not in str(cluster.calls)
    assert "KEY IN ENVIRONMENT" not in str(cluster.calls)


async def test_a_secret_that_may_not_be_read(
    cluster: Cluster, backend: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with aclosing(connect("kube://chat/llama-chat:80?secret=keys")) as connection:
        with pytest.raises(KubeError, match="forbidden"):
            await answer(connection)
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "general")
    async with aclosing(connect("kube://chat/llama-chat:80?secret=keys")) as connection:
        await answer(connection)
    assert backend.keys == ["Bearer general"]


async def test_a_pod_that_is_pending_is_waited_for(cluster: Cluster) -> None:
    cluster.set(pending=2)
    async with aclosing(connect("kube://chat/llama-chat:80")) as connection:
        with pytest.raises(PodPending, match="Pending"):
            await connection.status()
        stages: list[Stage] = []
        connection.listen(lambda stage, _: stages.append(stage))
        assert await answer(connection) == "Hello, world!"
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
    async with aclosing(connect("kube://chat/llama-chat")) as connection:
        with pytest.raises(error) as caught:
            await connection.status()
    assert type(caught.value) is error


async def test_without_kubectl(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    async with aclosing(connect("kube://chat/llama-chat")) as connection:
        with pytest.raises(KubeError, match="not on PATH"):
            await connection.status()


def test_a_port_forward_ends_with_a_killed_front_end(cluster: Cluster) -> None:
    """Nobody is left to close it, and an open port would stay behind."""
    import subprocess
    import sys

    program = (
        "import asyncio, tests.tui.backends.test_remote as t\n"
        "async def main():\n"
        "    await t.connect('kube://chat/llama-chat').status()\n"
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
