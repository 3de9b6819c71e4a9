"""The backend of this machine: found, started, started again, replaced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llama_backend.client import launch
from llama_backend.client.http_client import Address
from llama_backend.client.launch import RuntimeFiles
from llama_backend.errors import Unauthorized, Unavailable, Unreachable
from llama_backend.models.installed import InstalledModel
from llama_backend.server_config import ServerConfig
from llama_backend.wire.api import ChatMessage, ChatRequest
from llama_chat.backends.local import LocalBackend
from llama_chat.errors import ChatError
from llama_chat.paths import user_paths
from llama_chat.settings import Settings
from tests.support.scripted_server import MODEL, ScriptedServer

REQUEST = ChatRequest(model=MODEL, messages=[ChatMessage("user", "hi")])


@dataclass
class Launcher:
    """Stands for `launch`: hands out the sockets of scripted backends one after the other."""

    sockets: list[Path]
    stopped: list[int] = field(default_factory=list)

    def ensure(self, _: RuntimeFiles, __: ServerConfig) -> Address:
        return Address(socket=self.sockets.pop(0))

    def stop(self, _: RuntimeFiles, pid: int) -> bool:
        self.stopped.append(pid)
        return True


@pytest.fixture
def sockets(isolated_home: Path) -> list[Path]:
    return [isolated_home / "1.sock", isolated_home / "2.sock"]


@pytest.fixture
def launcher(sockets: list[Path], monkeypatch: pytest.MonkeyPatch) -> Launcher:
    made = Launcher(list(sockets))
    monkeypatch.setattr("llama_chat.backends.launching.ensure", made.ensure)
    monkeypatch.setattr(launch, "stop", made.stop)
    return made


def local(settings: Settings | None = None) -> LocalBackend:
    return LocalBackend(settings or Settings(), user_paths(), InstalledModel(MODEL, Path("/nowhere.gguf")))


async def answer(backend: LocalBackend) -> str:
    async with aclosing(backend):
        return "".join([delta.text async for delta in backend.chat(REQUEST)])


@contextmanager
def both(sockets: list[Path], **first: Any) -> Iterator[tuple[ScriptedServer, ScriptedServer]]:
    """Two backends; `first` is how the first one differs."""
    with ScriptedServer(sockets[0], **first) as one, ScriptedServer(sockets[1]) as two:
        yield one, two


async def test_a_dead_backend_is_started_again_once(launcher: Launcher, sockets: list[Path]) -> None:
    with ScriptedServer(sockets[1]) as alive:
        assert await answer(local()) == "Hello, world!"
    assert len(alive.requests) == 1
    assert launcher.sockets == []


async def test_states_are_removed_without_starting_a_backend(launcher: Launcher, isolated_home: Path) -> None:
    state = isolated_home / "cache" / "llama-chat" / "kv-states" / ("0" * 32) / "a.kvstate"
    state.parent.mkdir(parents=True)
    state.write_bytes(bytes(2000))
    await local().clear_kv_states()
    assert not state.exists()
    assert len(launcher.sockets) == 2


async def test_a_second_death_is_reported(launcher: Launcher) -> None:
    with pytest.raises(Unreachable):
        await answer(local())
    assert launcher.sockets == []


async def test_an_answer_that_has_begun_is_not_asked_again(launcher: Launcher, sockets: list[Path]) -> None:
    with both(sockets) as (first, second):
        first.enqueue("half", breaks=True)
        with pytest.raises(Unreachable):
            await answer(local())
    assert second.requests == []


async def test_a_connection_that_breaks_before_the_answer_is_made_again(
    launcher: Launcher, sockets: list[Path]
) -> None:
    with both(sockets) as (first, second):
        first.enqueue(breaks=True)
        assert await answer(local()) == "Hello, world!"
    assert (len(first.requests), len(second.requests)) == (1, 1)


async def test_other_errors_are_raised_at_once(launcher: Launcher, sockets: list[Path]) -> None:
    with both(sockets) as (first, second):
        first.enqueue(status=401, error={"message": "key", "code": "invalid_api_key"})
        with pytest.raises(Unauthorized):
            await answer(local())
    assert second.requests == []


async def test_an_idle_backend_with_another_model_is_replaced(launcher: Launcher, sockets: list[Path]) -> None:
    with both(sockets, model="another") as (first, _):
        first.enqueue(status=404, error={"message": "not served", "code": "model_not_found"})
        assert await answer(local()) == "Hello, world!"
    assert launcher.stopped == [1]


async def test_a_backend_at_work_with_another_model_stays(launcher: Launcher, sockets: list[Path]) -> None:
    with both(sockets, model="another", active=1) as (first, _):
        first.enqueue(status=404, error={"message": "not served", "code": "model_not_found"})
        with pytest.raises(Unavailable, match="busy with another"):
            await answer(local())
    assert launcher.stopped == []


async def test_a_backend_that_serves_the_wanted_model_among_others_stays(
    launcher: Launcher, sockets: list[Path]
) -> None:
    with both(sockets, model="another", others=[MODEL]):
        backend = local()
        assert (await backend.status()).model == "another"
        await backend.aclose()
    assert launcher.stopped == []


async def test_the_status_is_that_of_the_wanted_model(launcher: Launcher, sockets: list[Path]) -> None:
    backend = local()
    with both(sockets, model="another"):
        assert (await backend.status()).model == MODEL
        assert [model.id for model in await backend.models()] == [MODEL]
        assert (await backend.count([ChatMessage("user", "two words")])).count == 2
        await backend.aclose()
    assert launcher.stopped == [1]


async def test_no_key_goes_to_the_local_backend(launcher: Launcher, sockets: list[Path]) -> None:
    with both(sockets) as (first, _):
        await answer(local())
    assert first.keys == [None]


async def test_a_backend_that_cannot_be_started(sockets: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: RuntimeFiles, __: ServerConfig) -> Address:
        raise PermissionError(13, "Permission denied", "/log")

    monkeypatch.setattr("llama_chat.backends.launching.ensure", fails)
    with pytest.raises(ChatError, match=r"cannot be started: .*Permission denied"):
        await answer(local())


@pytest.mark.parametrize(("log", "store"), [(True, None), (False, False)])
async def test_what_is_not_logged_is_not_stored_either(
    launcher: Launcher, sockets: list[Path], log: bool, store: bool | None
) -> None:
    with ScriptedServer(sockets[0]) as backend:
        await answer(local(Settings(log=log)))
        assert backend.requests[0].get("store") is store
