"""The connection to the backend of the settings: found, started, started again, replaced."""

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
from llama_backend.errors import ModelNotFound, Unauthorized, Unavailable, Unreachable
from llama_backend.models.installed import InstalledModel
from llama_backend.server_config import ServerConfig
from llama_backend.wire.api import ChatMessage, ChatRequest
from llama_chat.backends.launching import server_config
from llama_chat.backends.local import LocalConnection
from llama_chat.config import Settings
from llama_chat.errors import ChatError, ConfigError
from llama_chat.paths import user_paths
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


def local(settings: Settings | None = None) -> LocalConnection:
    return LocalConnection(settings or Settings(), user_paths(), InstalledModel(MODEL, Path("/nowhere.gguf")))


async def answer(connection: LocalConnection) -> str:
    async with aclosing(connection):
        return "".join([delta.text async for delta in connection.chat(REQUEST)])


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
        with pytest.raises(Unavailable, match="at work with another"):
            await answer(local())
    assert launcher.stopped == []


async def test_a_backend_that_serves_the_wanted_model_among_others_stays(
    launcher: Launcher, sockets: list[Path]
) -> None:
    with both(sockets, model="another", others=[MODEL]):
        connection = local()
        assert (await connection.status()).model == "another"
        await connection.aclose()
    assert launcher.stopped == []


async def test_the_status_is_that_of_the_wanted_model(launcher: Launcher, sockets: list[Path]) -> None:
    connection = local()
    with both(sockets, model="another"):
        assert (await connection.status()).model == MODEL
        assert [model.id for model in await connection.models()] == [MODEL]
        assert (await connection.count([ChatMessage("user", "two words")])).count == 2
        await connection.aclose()
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


def test_where_states_are_kept() -> None:
    model, paths = InstalledModel("name", Path("/m.gguf")), user_paths()
    usual = server_config(Settings(), paths, model).engine
    assert (usual.kv_folder, usual.kv_disk, usual.kv_ram) == (str(paths.kv_states), 2 << 30, 256 << 20)
    settings = Settings(kv_cache_dir="/x", kv_cache_size=0, kv_cache_ram=1)
    other = server_config(settings, paths, model).engine
    assert (other.kv_folder, other.kv_disk, other.kv_ram) == ("/x", 0, 1 << 20)


@pytest.mark.parametrize(
    ("settings", "on"), [({}, True), ({"speculation": "auto"}, True), ({"speculation": "off"}, False)]
)
def test_whether_it_speculates(settings: dict[str, Any], on: bool) -> None:
    config = server_config(Settings(**settings), user_paths(), InstalledModel("name", Path("/m.gguf")))
    assert config.engine.speculation is on


def test_a_draft_model_has_a_name_or_a_path(tmp_path: Path) -> None:
    paths = user_paths(tmp_path)
    (tmp_path / "small.gguf").write_bytes(b"GGUF" + bytes(100))
    for name in ("small", str(tmp_path / "small.gguf")):
        config = server_config(Settings(draft_model=name), paths, InstalledModel("name", Path("/m.gguf")))
        assert config.engine.draft_model == str(tmp_path / "small.gguf")
    with pytest.raises(ModelNotFound):
        server_config(Settings(draft_model="none"), paths, InstalledModel("name", Path("/m.gguf")))


def test_the_settings_describe_the_background_backend() -> None:
    settings = Settings(ctx_size=512, parallel=2, threads=1, gpu_layers=-1, idle_exit=5)
    config = server_config(settings, user_paths(), InstalledModel("name", Path("/m.gguf")))
    engine = config.engine
    assert (config.model, engine.path, config.idle_exit, config.host) == ("name", "/m.gguf", 5, None)
    assert (engine.context, engine.slots, engine.threads, engine.gpu_layers) == (512, 2, 1, -1)


def test_the_settings_of_memory_and_gpus() -> None:
    model = InstalledModel("name", Path("/m.gguf"))
    usual = server_config(Settings(), user_paths(), model).engine
    assert (usual.gpu_layers, usual.tensor_split, usual.kv_type, usual.kv_unified) == (None, None, "f16", None)
    assert (usual.flash_attention, usual.batch, usual.ubatch) == (None, None, None)
    settings = Settings(
        tensor_split="3,1.5", kv_type="q8_0", kv_layout="split", flash_attention="on", batch_size=64, ubatch_size=32
    )
    engine = server_config(settings, user_paths(), model).engine
    assert (engine.tensor_split, engine.kv_type, engine.kv_unified) == ([3.0, 1.5], "q8_0", False)
    assert (engine.flash_attention, engine.batch, engine.ubatch) == (True, 64, 32)
    assert server_config(Settings(main_gpu=1, kv_layout="unified"), user_paths(), model).engine.kv_unified


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (Settings(kv_type="q4_0", flash_attention="off"), "needs flash attention"),
        (Settings(main_gpu=0, tensor_split="1,1"), "give either"),
        (Settings(tensor_split="0,0.0"), "above 0"),
    ],
)
def test_settings_that_cannot_go_together(settings: Settings, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        server_config(settings, user_paths(), InstalledModel("name", Path("/m.gguf")))


@pytest.mark.parametrize(("setting", "seconds"), [(None, 600.0), (0.0, None), (5.0, 5.0)])
def test_when_a_background_backend_ends(setting: float | None, seconds: float | None) -> None:
    config = server_config(Settings(idle_exit=setting), user_paths(), InstalledModel("name", Path("/m.gguf")))
    assert config.idle_exit == seconds
