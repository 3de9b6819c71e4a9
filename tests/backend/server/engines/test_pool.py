"""Which models are loaded when: the policy alone, and over HTTP with a fake engine for each model."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest

from llama_backend.errors import DeadlineExceeded, InvalidRequest, ModelNotFound
from llama_backend.server.engines.deadline import Deadline
from llama_backend.server.engines.pool import ModelPool
from llama_backend.server.engines.served_model import ServedModel
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.server.main import installed_engines, run
from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig
from tests.backend.server.conftest import Serve
from tests.backend.server.http.test_metrics_page import metrics
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, MODEL, Reader, ServerProcess, chat, fake_config, write_model
from tests.support.wait import until, until_async


class Instant(Supervisor):
    async def wait_ready(self, seconds: float) -> None:
        self.status.change("ready")


class Pool(ModelPool):
    """A pool whose models load and unload at once; `log` says which did."""

    def __init__(self, *names: str, most: int | None = None, idle: float | None = None) -> None:
        self.log: list[str] = []
        super().__init__(
            self._made(names[0]), lambda: dict.fromkeys(names, EngineConfig(path="")), most, idle, self._made
        )
        self.first.load()

    def _made(self, name: str, _: EngineConfig | None = None) -> ServedModel:
        return Model(name, self.log)

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[None]:
        async with self.use(self.find(name), 0, Deadline(None)):
            yield

    async def ask(self, name: str) -> None:
        async with self.using(name):
            await asyncio.sleep(0)


class Model(ServedModel):
    def __init__(self, name: str, log: list[str]) -> None:
        super().__init__(name, EngineConfig(path=""))
        self._log = log
        self.supervisor = Instant(self.config)

    def load(self) -> None:
        self._log.append(f"+{self.name}")
        self.loaded = True

    async def unload(self) -> None:
        assert not self.users
        self._log.append(f"-{self.name}")
        self.loaded = False
        await asyncio.sleep(0)


async def test_one_model_alone_has_no_other_name() -> None:
    pool = Pool("a", "b")
    assert pool.find("a") is pool.find("") is pool.find("default") is pool.first
    with pytest.raises(ModelNotFound, match="the only model is 'a'"):
        pool.find("b")
    assert [model.name for model in pool.models] == ["a"]


async def test_the_least_recently_used_gives_way() -> None:
    pool = Pool("a", "b", "c", most=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        await pool.ask(name)
    assert pool.log == ["+a", "+b", "-b", "+c", "-c", "+b"]
    with pytest.raises(ModelNotFound, match="GET /v1/models"):
        pool.find("d")


async def test_a_model_in_use_is_waited_for_and_lets_nobody_else_in() -> None:
    pool = Pool("a", "b", most=1)
    async with pool.using("a"):
        other = asyncio.create_task(pool.ask("b"))
        await until_async(lambda: pool.first.unload_wanted)
        late = asyncio.create_task(pool.ask("a"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert pool.log == ["+a"]
        assert not late.done()
    await asyncio.wait_for(asyncio.gather(other, late), 2)
    assert pool.log == ["+a", "-a", "+b", "-b", "+a"]


async def test_who_gives_up_waiting_leaves_the_model_to_the_others() -> None:
    pool = Pool("a", "b", most=1)
    async with pool.using("a"):
        with pytest.raises(DeadlineExceeded):
            async with pool.use(pool.find("b"), 0, Deadline(0.02)):
                pass
        await asyncio.wait_for(pool.ask("a"), 1)
    assert pool.log == ["+a"]
    await asyncio.wait_for(pool.ask("b"), 1)


async def test_many_who_want_different_models_all_get_them() -> None:
    pool = Pool("a", "b", "c", most=2)
    await asyncio.wait_for(asyncio.gather(*[pool.ask("abc"[number % 3]) for number in range(60)]), 5)
    assert all(not model.users for model in pool.models)
    assert len(pool.loaded) == 2


async def test_a_model_that_nobody_uses_is_unloaded() -> None:
    pool = Pool("a", "b", most=2, idle=0.02)
    watcher = asyncio.create_task(pool.watch_idle())
    async with pool.using("b"):
        await until_async(lambda: pool.log == ["+a", "+b", "-a"])
    await until_async(lambda: pool.log[3:] == ["-b"])
    watcher.cancel()


def serve_models(serve: Serve, folder: Path, models: dict[str, FakeModel], **settings: Any) -> ServerProcess:
    models_folder = folder / "models"
    models_folder.mkdir()
    for name, model in models.items():
        write_model(models_folder / f"{name}.gguf", model)
    return serve(models_folder=str(models_folder), **settings)


def states(server: ServerProcess) -> dict[str, str]:
    with server.http() as client:
        return {each["id"]: each["state"] for each in client.get("/v1/models").json()["data"]}


def content(answer: Any) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def test_a_request_loads_the_model_that_it_names(serve: Serve, tmp_path: Path) -> None:
    server = serve_models(serve, tmp_path, {"b": FakeModel(load=0.3), "bad": FakeModel(fail="it is bad")}, models_max=1)
    assert {name: state for name, state in states(server).items() if "smol" not in name} == {
        MODEL: "ready",
        "b": "unloaded",
        "bad": "unloaded",
    }
    with server.http() as client:
        answer = client.post(CHAT, json=chat("a b", model="b"))
        assert (content(answer), answer.json()["model"]) == ("a b", "b")
        assert (states(server)[MODEL], states(server)["b"]) == ("unloaded", "ready")
        assert server.status().loaded == ["b"]
        assert client.get("/readyz").status_code == client.get("/startupz").status_code == 200
        assert client.post("/v1/tokenize", json={"prompt": "a b", "model": "b"}).json()["count"] == 2
        bad = client.post(CHAT, json=chat(model="bad"))
        assert (bad.status_code, bad.json()["error"]["message"]) == (503, "it is bad")
        unknown = client.post(CHAT, json=chat(model="c"))
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
        assert client.get("/v1/models/b").json()["state"] == "unloaded"
        write_model(tmp_path / "models" / "new.gguf")
        assert content(client.post(CHAT, json=chat("x", model="new"))) == "x"
        assert content(client.post(CHAT, json=chat("y"))) == "y"
    value = metrics(server)
    assert (value("model_loaded", model=MODEL), value("model_loaded", model="b")) == (1, 0)
    assert (value("requests_total", model="b"), value("requests_total", model="new")) == (1, 1)
    with server.openai() as client, pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="other", input="a")


def test_streams_go_on_while_another_model_loads(serve: Serve, tmp_path: Path) -> None:
    server, gate = serve_models(serve, tmp_path, {"b": FakeModel(load=0.1)}, models_max=2), tmp_path / "gate"
    running = Reader(server, chat(f"words=10 gate={gate}"), "w0")
    with server.http() as client:
        assert content(client.post(CHAT, json=chat("a", model="b"))) == "a"
    assert running.is_alive()
    gate.touch()
    assert "w9" in running.text()


def test_no_model_is_unloaded_under_a_stream_and_who_waits_gets_heartbeats(serve: Serve, tmp_path: Path) -> None:
    server, gate = serve_models(serve, tmp_path, {"b": FakeModel()}, models_max=1, heartbeat=0.2), tmp_path / "gate"
    running = Reader(server, chat(f"words=10 gate={gate}"), "w0")
    waiting = Reader(server, chat("a", model="b"), ": heartbeat")
    gate.touch()
    assert "w9" in running.text()
    lines = [line for line in waiting.text().splitlines() if line]
    assert lines[0] == ": heartbeat"
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events) == "a"


def test_a_model_is_unloaded_after_idleness_and_loaded_again(serve: Serve) -> None:
    server = serve(models_max=1, model_idle=0.3)
    pid = server.status().engine_pid
    until(lambda: server.status().loaded == [], what="the unloading")
    assert server.status().state == "ready"
    with server.http() as client:
        assert content(client.post(CHAT, json=chat("a b"))) == "a b"
    assert server.status().engine_pid not in (None, pid)


def test_one_model_alone_can_be_unloaded_too(tmp_path: Path, serve: Serve) -> None:
    assert fake_config(tmp_path).models_max is None
    server = serve(model_idle=0.2)
    until(lambda: server.status().loaded == [], what="the unloading")
    with server.http() as client:
        assert content(client.post(CHAT, json=chat("a b"))) == "a b"


def test_files_with_odd_names_are_served_or_left_out(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for odd in (b'a"b\\', b"a\nb", b"\xff\xfe", b"\x1b[2J", b"\xe2\x80\xa8"):
        write_model(Path(os.fsdecode(os.fsencode(folder) + b"/" + odd + b".gguf")))
    server = serve(models_folder=str(folder), models_max=2)
    with server.http() as client:
        listed = [model["id"] for model in client.get("/v1/models").json()["data"]]
        assert set(listed) >= {MODEL, 'a"b\\', "\u2028"}
        assert not any(character in "".join(listed) for character in "\n\x1b\udcff")
        for name in ('a"b\\', "\u2028"):
            assert client.post(CHAT, json=chat("a", model=name)).status_code == 200
    assert server.status().loaded == ['a"b\\', "\u2028"]
    value = metrics(server)
    assert (value("model_loaded", model='a"b\\'), value("model_loaded", model="\u2028")) == (1, 1)


def test_a_model_whose_path_is_no_text_is_refused(tmp_path: Path) -> None:
    config = fake_config(tmp_path)
    odd = msgspec.structs.replace(config.engine, path=os.fsdecode(b"/\xff.gguf"))
    with pytest.raises(InvalidRequest, match="another name"):
        run(msgspec.structs.replace(config, engine=odd))


def test_a_draft_model_is_only_for_the_model_that_it_was_given_with(tmp_path: Path) -> None:
    (tmp_path / "b.gguf").write_bytes(b"")
    first = EngineConfig(path="/a.gguf", threads=3, draft_model="/small.gguf")
    found = installed_engines(ServerConfig(model="a", engine=first, models_folder=str(tmp_path)))
    assert found["b"] == EngineConfig(path=str(tmp_path / "b.gguf"), threads=3)
