"""When a server says that only a new process can help."""

from __future__ import annotations

from time import monotonic

import msgspec
import pytest

from llama_backend.ipc import EngineConfig, Ready
from llama_backend.server.supervisor import Supervisor
from llama_backend.server.vitals import trouble
from tests.server.conftest import Serve
from tests.server.fake_engine import FakeModel
from tests.server.harness import CHAT, chat, until, write_model

READY = Ready(
    context=16,
    context_trained=16,
    slots=1,
    threads=1,
    gpu_layers=0,
    kv_unified=True,
    description="",
    parameters=1,
    size=1,
)


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(EngineConfig(path="/nowhere"))


def test_loading_is_no_trouble(supervisor: Supervisor) -> None:
    supervisor.last_step = monotonic() - 1000
    assert trouble(supervisor, 60) is None


def test_a_step_that_does_not_end(supervisor: Supervisor) -> None:
    supervisor._take(READY)
    supervisor.running = 1
    assert trouble(supervisor, 60) is None
    supervisor.last_step = monotonic() - 61
    assert "not ended a step" in (trouble(supervisor, 60) or "")
    supervisor.running = 0
    assert trouble(supervisor, 60) is None


def test_a_gpu_that_is_lost(supervisor: Supervisor) -> None:
    supervisor._take(READY)
    assert trouble(supervisor, 60) is None
    supervisor._take(msgspec.structs.replace(READY, gpu_layers=33))
    assert trouble(supervisor, 60) is None
    supervisor._take(READY)
    assert "the GPU is lost" in (trouble(supervisor, 60) or "")


def test_an_engine_that_does_not_come_back(serve: Serve) -> None:
    server = serve(FakeModel())
    with server.http() as client:
        assert client.get("/livez").status_code == 200
        write_model(server.log.parent / "fake.json", FakeModel(fail="the device is gone"))
        assert client.post(CHAT, json=chat("a b die=1")).status_code == 503
        server.wait_state("failed")
        answer = client.get("/livez")
    assert (answer.status_code, answer.json()["reason"]) == (503, "the engine is lost: the device is gone")


def test_a_server_whose_model_never_loaded_lives(serve: Serve) -> None:
    server = serve(FakeModel(fail="no model"), ready=False)
    server.wait_state("failed")
    with server.http() as client:
        assert client.get("/livez").status_code == 200
        assert client.get("/startupz").status_code == 503


def test_an_engine_that_hangs(serve: Serve) -> None:
    server = serve(stall=0.2)
    with server.http() as client, client.stream("POST", CHAT, json=chat("delay=60", stream=True)):
        until(lambda: client.get("/livez").status_code == 503, what="the verdict")
