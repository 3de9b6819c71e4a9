"""The supervisor in this process, with real child processes that run the fake engine."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from llama_backend.errors import EngineDied, ModelUnreadable, Unavailable
from llama_backend.server.engines import restarts
from llama_backend.server.engines import supervisor as module
from llama_backend.server.engines.pending import PendingCompletion, PendingCount
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.server.engines.watched_process import resident_bytes
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import Count, Counted, EngineConfig, Submit
from tests.support.server.fake_engine import MODULE, FakeModel
from tests.support.server.harness import python_path, runs, write_model
from tests.support.wait import until_async


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


def completion(prompt: str, sampling: SamplingParams | None = None) -> PendingCompletion:
    return PendingCompletion(Submit(sampling=sampling or SamplingParams(), prompt=prompt))


async def text_of(supervisor: Supervisor, prompt: str) -> str:
    with supervisor.requests.opened(completion(prompt)) as pending:
        return "".join([output.text async for output in pending.outputs()])


async def counted(supervisor: Supervisor, prompt: str) -> Counted:
    with supervisor.requests.opened(PendingCount(Count(prompt=prompt, return_tokens=True))) as pending:
        return await pending.counted()


def pid_of(supervisor: Supervisor) -> int | None:
    return supervisor.status.process.pid if supervisor.status.process else None


def kill_engine(supervisor: Supervisor) -> int:
    pid = pid_of(supervisor)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


async def test_a_request_from_start_to_end(supervisor: Supervisor) -> None:
    status = supervisor.status
    assert status.state == "loading"
    await supervisor.wait_ready(30)
    assert (status.state, status.was_ready, status.progress) == ("ready", True, 1.0)
    assert await text_of(supervisor, "a b") == "a b"
    assert len(supervisor.requests) == 0
    assert resident_bytes(pid_of(supervisor) or 0) > 1_000_000


async def test_closing_cancels_what_has_not_ended(supervisor: Supervisor) -> None:
    await supervisor.wait_ready(30)
    with supervisor.requests.opened(completion("words=1000 delay=0.05")) as pending:
        await pending.accepted()
        async with asyncio.timeout(2):
            await anext(pending.outputs())
            assert supervisor.status.running == 1
    await until_async(lambda: supervisor.status.running == 0, 2)
    assert len(supervisor.requests) == 0


async def test_a_count_whose_asker_went_away_harms_nobody(supervisor: Supervisor) -> None:
    await supervisor.wait_ready(30)
    pending = PendingCount(Count(prompt="a b"))
    with supervisor.requests.opened(pending):
        pass
    supervisor.requests.take(Counted(id=pending.number, count=2, context=9))
    assert (await counted(supervisor, "a b")).tokens == [0, 1]


async def test_stop_fails_those_who_wait(config: EngineConfig) -> None:
    supervisor = Supervisor(config)
    supervisor.start()
    await supervisor.wait_ready(30)
    pid = pid_of(supervisor)
    with supervisor.requests.opened(completion("words=1000 delay=0.1")) as pending:
        await pending.accepted()
        await supervisor.stop()
        with pytest.raises(Unavailable, match="shutting down"):
            [output async for output in pending.outputs()]
    assert pid is not None
    assert not runs(pid)
    await supervisor.stop()


async def test_stop_at_once_after_the_start(config: EngineConfig) -> None:
    write_model(Path(config.path), FakeModel(load=30))
    process = EngineProcess(config)
    supervisor = Supervisor(config, process)
    assert pid_of(supervisor) == process.pid
    begin = monotonic()
    await supervisor.stop()
    assert monotonic() - begin < 2
    assert not runs(process.pid)


async def test_an_engine_that_cannot_be_started_is_tried_again(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await supervisor.wait_ready(30)

    def no_memory(_: EngineConfig) -> EngineProcess:
        raise OSError(12, "Cannot allocate memory")

    with monkeypatch.context() as patch, supervisor.requests.opened(completion("words=9 die=2")) as pending:
        patch.setattr(module, "EngineProcess", no_memory)
        with pytest.raises(EngineDied):
            [output async for output in pending.outputs()]
        with pytest.raises(ModelUnreadable, match="Cannot allocate memory"):
            await supervisor.wait_ready(30)
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0.0)
    await supervisor.wait_ready(30)
    assert await text_of(supervisor, "a b") == "a b"


async def test_a_request_to_an_engine_that_has_just_died_goes_to_the_next(supervisor: Supervisor) -> None:
    await supervisor.wait_ready(30)
    kill_engine(supervisor)
    async with asyncio.timeout(30):
        assert await text_of(supervisor, "a") == "a"
    assert supervisor.restarts.total == 1
    assert len(supervisor.requests) == 0


async def test_an_engine_that_is_killed_while_it_loads_again_is_followed_by_another(
    config: EngineConfig, supervisor: Supervisor, tmp_path: Path
) -> None:
    await supervisor.wait_ready(30)
    gate = tmp_path / "gate"
    write_model(Path(config.path), FakeModel(gate=str(gate)))
    killed = set[int | None]({None})
    for _ in range(3):
        await until_async(lambda: pid_of(supervisor) not in killed, what="another engine")
        killed.add(kill_engine(supervisor))
    await until_async(lambda: supervisor.status.state == "restarting")
    gate.touch()
    await until_async(lambda: supervisor.status.state != "restarting")
    assert supervisor.status.state == "ready"
    assert await text_of(supervisor, "a b") == "a b"


async def test_engines_that_die_one_after_another_have_an_end_until_somebody_asks(
    config: EngineConfig, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "PAUSES", (0.0, 0.01))
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0.0)
    await supervisor.wait_ready(30)
    write_model(Path(config.path), FakeModel(die_loading=True))
    kill_engine(supervisor)
    await until_async(lambda: supervisor.status.state == "failed")
    assert "3 times in a row the engine ended with signal 9" in (supervisor.status.reason or "")
    assert supervisor.restarts.total == 2
    write_model(Path(config.path))
    await supervisor.wait_ready(30)
    assert await text_of(supervisor, "a b") == "a b"


@pytest.mark.parametrize("sent", [b"\xff\xff\xff\xff", b"\x01\x00\x00\x00\xc1", b"\xff\xff\x00\x00" + b"\x91" * 65_535])
async def test_an_engine_that_sends_what_cannot_be_decoded_is_followed_by_another(
    supervisor: Supervisor, sent: bytes
) -> None:
    await supervisor.wait_ready(30)
    old = pid_of(supervisor)
    with supervisor.requests.opened(completion(f"send={sent.hex()}")):
        await until_async(lambda: supervisor.restarts.total == 1, what="the end of the engine")
    await supervisor.wait_ready(30)
    assert await text_of(supervisor, "a b") == "a b"
    assert old is not None
    assert not runs(old)


def test_pauses_grow_and_end_where_no_engine_is_of_use() -> None:
    young = restarts.Restarts()
    pauses = [young.pause(was_ready=False) for _ in range(7)]
    assert pauses == [0.0, 0.5, 2.0, 5.0, 10.0, None, None]
    young.engine_started()
    young.note_use()
    assert young.pause(was_ready=False) == 0.0
    young.engine_started()
    assert young.pause(was_ready=True) == 0.0
    assert young.total == 7


async def test_why_a_model_cannot_be_loaded_is_told_also_while_it_is_tried_again(
    config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RELOAD_SECONDS", 0.0)
    write_model(Path(config.path), FakeModel(fail="it is no model"))
    supervisor = Supervisor(config)
    supervisor.start()
    with pytest.raises(ModelUnreadable, match="it is no model"):
        await supervisor.wait_ready(30)
    for _ in range(3):
        with pytest.raises(ModelUnreadable, match="it is no model"):
            await supervisor.wait_ready(0)
        assert (supervisor.status.state, supervisor.status.reason) == ("loading", "it is no model")
        with pytest.raises(ModelUnreadable, match="it is no model"):
            await supervisor.wait_ready(30)
    await supervisor.stop()


async def test_a_real_engine_that_is_killed_at_any_point_of_its_life_is_followed_by_another(
    demo_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restarts, "PAUSES", (0.0,) * 20)
    supervisor = Supervisor(EngineConfig(path=str(demo_model), context=256, threads=1))
    supervisor.start()
    await supervisor.wait_ready(60)
    random = Random(0)
    for _ in range(8):
        await asyncio.sleep(random.random())
        if pid_of(supervisor) is not None:
            kill_engine(supervisor)
    async with asyncio.timeout(60):
        with supervisor.requests.opened(completion("Once", SamplingParams(max_tokens=2))) as pending:
            assert len(await pending.whole()) == 1
    await supervisor.stop()
