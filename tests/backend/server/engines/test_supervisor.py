"""The supervisor in this process, over real children that run the fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from llama_backend.errors import EngineDied, ModelUnreadable, Unavailable
from llama_backend.server.engines import restarts
from llama_backend.server.engines import supervisor as module
from llama_backend.server.engines.link import EngineChild, resident_bytes
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import Counted, EngineConfig
from tests.support.server.fake_engine import MODULE, FakeModel
from tests.support.server.harness import python_path, runs, write_model


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EngineConfig:
    monkeypatch.setenv("PYTHONPATH", python_path())
    return EngineConfig(path=str(write_model(tmp_path / "fake.json")), module=MODULE)


@pytest.fixture
async def supervisor(config: EngineConfig) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(config)
    supervisor.start()
    yield supervisor
    await supervisor.stop()


async def text_of(supervisor: Supervisor, prompt: str) -> str:
    ticket = supervisor.submit(SamplingParams(), None, prompt)
    try:
        return "".join([piece.text async for piece in ticket.pieces()])
    finally:
        supervisor.release(ticket)


async def test_a_request_from_start_to_end(supervisor: Supervisor) -> None:
    assert supervisor.state == "loading"
    await supervisor.wait_ready(30)
    assert (supervisor.state, supervisor.was_ready, supervisor.progress) == ("ready", True, 1.0)
    assert await text_of(supervisor, "a b") == "a b"
    assert supervisor.active == 0
    assert supervisor.pid is not None
    assert resident_bytes(supervisor.pid) > 1_000_000


async def test_release_cancels_what_has_not_ended(supervisor: Supervisor) -> None:
    await supervisor.wait_ready(30)
    ticket = supervisor.submit(SamplingParams(), None, "words=1000 delay=0.05")
    await ticket.accepted()
    async with asyncio.timeout(2):
        await anext(ticket.pieces())
        assert supervisor.running == 1
        supervisor.release(ticket)
        while await supervisor.count(None, "a", False) and supervisor.running:
            pass
    assert supervisor.active == 0
    supervisor.release(ticket)


async def test_a_count_whose_asker_went_away_harms_nobody(supervisor: Supervisor) -> None:
    await supervisor.wait_ready(30)
    asker = asyncio.create_task(supervisor.count(None, "a b", False))
    await asyncio.sleep(0)
    number = next(iter(supervisor.ledger._tickets))
    asker.cancel()
    supervisor._take(Counted(id=number, count=2, context=9))
    with pytest.raises(asyncio.CancelledError):
        await asker
    assert (await supervisor.count(None, "a b", True)).tokens == [0, 1]


async def test_stop_fails_those_who_wait(config: EngineConfig) -> None:
    supervisor = Supervisor(config)
    supervisor.start()
    await supervisor.wait_ready(30)
    pid = supervisor.pid
    ticket = supervisor.submit(SamplingParams(), None, "words=1000 delay=0.1")
    await ticket.accepted()
    await supervisor.stop()
    with pytest.raises(Unavailable, match="shutting down"):
        [piece async for piece in ticket.pieces()]
    assert pid is not None
    assert not runs(pid)
    await supervisor.stop()


async def test_stop_at_once_after_the_start(config: EngineConfig) -> None:
    write_model(Path(config.path), FakeModel(load=30))
    supervisor = Supervisor(config, EngineChild(EngineProcess(config)))
    pid = supervisor.pid
    begin = monotonic()
    await supervisor.stop()
    assert monotonic() - begin < 2
    assert pid is not None
    assert not runs(pid)


async def test_an_engine_that_cannot_be_started_is_tried_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await supervisor.wait_ready(30)
    ticket = supervisor.submit(SamplingParams(), None, "words=9 die=2")

    def no_memory(_: EngineConfig) -> EngineProcess:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(module, "EngineProcess", no_memory)
        with pytest.raises(EngineDied):
            [piece async for piece in ticket.pieces()]
        supervisor.release(ticket)
        with pytest.raises(ModelUnreadable, match="Cannot allocate memory"):
            await supervisor.wait_ready(30)
    monkeypatch.setattr(module, "_RELOAD_SECONDS", 0.0)
    await supervisor.wait_ready(30)
    assert await text_of(supervisor, "a b") == "a b"


async def test_a_request_to_an_engine_that_has_just_died_goes_to_the_next(supervisor: Supervisor) -> None:
    await supervisor.wait_ready(30)
    child = supervisor._child
    assert child is not None
    child._process.kill()
    async with asyncio.timeout(30):
        assert await text_of(supervisor, "a") == "a"
    assert supervisor.restarts == 1
    assert supervisor.active == 0


async def test_an_engine_that_is_killed_while_it_loads_again_is_followed_by_another(
    config: EngineConfig, supervisor: Supervisor, tmp_path: Path
) -> None:
    await supervisor.wait_ready(30)
    gate = tmp_path / "gate"
    write_model(Path(config.path), FakeModel(gate=str(gate)))
    killed = set[int]()
    async with asyncio.timeout(30):
        while len(killed) < 3:
            if supervisor.pid is not None and supervisor.pid not in killed and supervisor._child is not None:
                killed.add(supervisor.pid)
                supervisor._child.abort()
            await asyncio.sleep(0.01)
        gate.touch()
        while supervisor.state != "ready":
            assert supervisor.state == "restarting"
            await asyncio.sleep(0.01)
    assert await text_of(supervisor, "a b") == "a b"


async def test_engines_that_die_one_after_another_have_an_end_until_somebody_asks(
    config: EngineConfig, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "_PAUSES", (0.0, 0.01))
    monkeypatch.setattr(module, "_RELOAD_SECONDS", 0.0)
    await supervisor.wait_ready(30)
    write_model(Path(config.path), FakeModel(die_loading=True))
    assert supervisor._child is not None
    supervisor._child.abort()
    async with asyncio.timeout(30):
        while supervisor.state != "failed":
            await supervisor._changed.wait()
    assert "3 times in a row the engine ended with signal 9" in (supervisor.reason or "")
    assert supervisor.restarts == 2
    write_model(Path(config.path))
    await supervisor.wait_ready(30)
    assert await text_of(supervisor, "a b") == "a b"


def test_pauses_grow_and_end_where_no_engine_is_of_use() -> None:
    young = restarts.Restarts()
    pauses = [young.pause(was_of_use=False) for _ in range(7)]
    assert pauses == [0.0, 0.5, 2.0, 5.0, 10.0, None, None]
    assert young.pause(was_of_use=True) == 0.0
    assert young.pause(was_of_use=False) == 0.0


@pytest.mark.parametrize("said", [b"\xff\xff\xff\xff", b"\x01\x00\x00\x00\xc1", b"\xff\xff\x00\x00" + b"\x91" * 65_535])
async def test_an_engine_that_says_what_nobody_understands_is_followed_by_another(
    supervisor: Supervisor, said: bytes
) -> None:
    await supervisor.wait_ready(30)
    old, child = supervisor.pid, supervisor._child
    assert child is not None
    assert child._transport is not None
    protocol = child._transport.get_protocol()
    assert isinstance(protocol, asyncio.Protocol)
    protocol.data_received(said)
    async with asyncio.timeout(30):
        while supervisor.pid in (old, None) or supervisor.state != "ready":
            await supervisor._changed.wait()
        assert await text_of(supervisor, "a b") == "a b"
    assert old is not None
    assert not runs(old)


async def test_why_a_model_cannot_be_loaded_is_told_also_while_it_is_tried_again(
    config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RELOAD_SECONDS", 0.0)
    write_model(Path(config.path), FakeModel(fail="it is no model"))
    supervisor = Supervisor(config)
    supervisor.start()
    with pytest.raises(ModelUnreadable, match="it is no model"):
        await supervisor.wait_ready(30)
    for _ in range(3):
        await asyncio.sleep(0.001)
        with pytest.raises(ModelUnreadable, match="it is no model"):
            await supervisor.wait_ready(0)
        assert (supervisor.state, supervisor.reason) == ("loading", "it is no model")
        with pytest.raises(ModelUnreadable, match="it is no model"):
            await supervisor.wait_ready(30)
    await supervisor.stop()


async def test_a_real_engine_that_is_killed_at_any_point_of_its_life_is_followed_by_another(
    demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "_PAUSES", (0.0,) * 20)
    supervisor = Supervisor(EngineConfig(path=str(demo_model), context=256, threads=1))
    supervisor.start()
    await supervisor.wait_ready(60)
    random = Random(0)
    for _ in range(8):
        await asyncio.sleep(random.random())
        if supervisor._child is not None:
            supervisor._child.abort()
    async with asyncio.timeout(60):
        ticket = supervisor.submit(SamplingParams(max_tokens=2), None, "Once")
        assert len(await ticket.whole()) == 1
        supervisor.release(ticket)
    await supervisor.stop()
