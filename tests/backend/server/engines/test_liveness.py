"""When a server says that only a new process can help."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from llama_backend.server.engines import engine_status, liveness, request_table, watched_process
from llama_backend.server.engines.liveness import hang_reason, liveness_problem
from llama_backend.server.engines.pending import PendingCompletion
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import Accepted, EngineConfig, StepDone, Submit
from tests.backend.server.conftest import Serve
from tests.support.clock import movable_clock
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, ServerProcess, chat, write_model
from tests.support.server.reports import READY
from tests.support.wait import until


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor(EngineConfig(path="/nowhere"))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that silence is measured with."""
    return movable_clock(monkeypatch, engine_status, liveness, request_table, watched_process)


def test_loading_is_no_problem(supervisor: Supervisor) -> None:
    supervisor.status.last_step = monotonic() - 1000
    assert liveness_problem(supervisor, 60) is None


def test_a_step_that_does_not_end(supervisor: Supervisor) -> None:
    supervisor.status.take(READY)
    supervisor.status.running = 1
    assert liveness_problem(supervisor, 60) is None
    supervisor.status.last_step = monotonic() - 61
    assert "not ended a step" in (liveness_problem(supervisor, 60) or "")
    supervisor.status.running = 0
    assert liveness_problem(supervisor, 60) is None


def test_a_gpu_that_is_lost(supervisor: Supervisor) -> None:
    supervisor.status.take(READY)
    assert liveness_problem(supervisor, 60) is None
    supervisor.status.take(msgspec.structs.replace(READY, gpu_layers=33))
    assert liveness_problem(supervisor, 60) is None
    supervisor.status.take(READY)
    assert "the GPU is lost" in (liveness_problem(supervisor, 60) or "")


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
    server = serve(stall=1.0)
    with server.http() as client, client.stream("POST", CHAT, json=chat("delay=60", stream=True)):
        until(lambda: client.get("/livez").status_code == 503, what="the verdict")


def stop_engine(server: ServerProcess) -> int:
    pid = server.status().engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


def reason_of(server: ServerProcess) -> str:
    """Why `/livez` says no; nothing while it says yes."""
    with server.http() as client:
        answer = client.get("/livez")
    return str(answer.json()["reason"]) if answer.status_code == 503 else ""


def is_ready(server: ServerProcess) -> bool:
    with server.http() as client:
        return client.get("/readyz").status_code == 200


def test_an_engine_that_is_stopped_while_nobody_asks_is_not_ready(serve: Serve) -> None:
    server = serve()
    assert is_ready(server)
    pid = stop_engine(server)
    until(lambda: not is_ready(server))
    assert reason_of(server) == ""
    os.kill(pid, signal.SIGCONT)
    until(lambda: is_ready(server))


@pytest.mark.parametrize(
    ("before", "reason"), [(True, "has been stopped"), (False, "has been stopped|has not ended a step")]
)
def test_an_engine_that_is_stopped_before_a_request_or_during_it_is_followed_by_another(
    serve: Serve, tmp_path: Path, before: bool, reason: str
) -> None:
    server, gate = serve(stall=1.0), tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        if before:
            stop_engine(server)
            gate.touch()
        answer = pool.submit(ask, server, f"words=3 gate={gate}")
        if not before:
            until(lambda: server.status().running == 1, what="the start")
            stop_engine(server)
            gate.touch()
        until(lambda: re.search(reason, reason_of(server)) is not None, what=reason)
        assert not is_ready(server)
        assert answer.result(30) == "w0 w1 w2"
    assert server.status().restarts == 1
    assert reason_of(server) == ""
    assert "the engine was ended: the engine has" in server.log.read_text()


async def test_an_engine_that_does_not_read_while_others_are_answered(
    supervisor: Supervisor, clock: Callable[[float], None]
) -> None:
    requests = supervisor.requests
    supervisor.status.take(READY)
    requests.engine_ready(lambda command: None)
    unread, read = (PendingCompletion(Submit(sampling=SamplingParams(), prompt="a")) for _ in range(2))
    with requests.opened(read):
        with requests.opened(unread):
            requests.take(Accepted(read.number, 1))
            assert hang_reason(supervisor, 60) is None
            clock(61)
            step = StepDone(outputs=[], running=1, waiting=0)
            supervisor.status.take(step)
            requests.take(step)
            assert "has not read a request" in (hang_reason(supervisor, 60) or "")
            assert "has not read a request" in (liveness_problem(supervisor, 60) or "")
        assert hang_reason(supervisor, 60) is None
        clock(61)
        assert "has not ended a step" in (hang_reason(supervisor, 60) or "")


def test_a_request_that_is_never_read_ends(serve: Serve) -> None:
    server = serve(stall=0.5)
    with server.http() as client:
        answer = client.post("/v1/tokenize", json={"prompt": "endless"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "request_ends_engine")
    assert "has not read a request" in answer.json()["error"]["message"]
    assert ask(server, "a b") == "a b"


def test_an_engine_that_is_stopped_while_it_loads_is_followed_by_another(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    server = serve(FakeModel(gate=str(gate)), stall=1.0)
    gate.unlink()
    os.kill(server.status().engine_pid or 0, signal.SIGKILL)
    until(lambda: server.status().restarts == 1 and server.status().engine_pid is not None, what="another engine")
    stop_engine(server)
    until(lambda: "stopped" in reason_of(server), what="the verdict")
    gate.touch()
    server.wait_state("ready")
    assert reason_of(server) == ""


def ask(server: ServerProcess, text: str) -> str:
    with server.http() as client:
        answer = client.post(CHAT, json=chat(text), headers={"Prefer": "wait=20"})
    return str(answer.json()["choices"][0]["message"]["content"])
