"""Full, loading, unreadable: who is sent away, with which answer, and who may wait."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import openai
import pytest

from llama_backend.server.streaming.sse import HEARTBEAT
from tests.backend.server.conftest import Serve
from tests.support.gguf_files import gguf
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, MODEL, Reader, ServerProcess, chat, write_model
from tests.support.wait import until


def test_a_full_queue(serve: Serve, tmp_path: Path) -> None:
    server, gate = serve(slots=1, max_queue=2), tmp_path / "gate"
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(_ask, server, f"words=5 gate={gate}") for _ in range(3)]
        until(lambda: server.status().waiting == 2, what="a full queue")
        assert server.status().active == 3
        for stream in (False, True):
            with server.openai() as client, pytest.raises(openai.RateLimitError) as caught:
                client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}], stream=stream)
            assert caught.value.code == "queue_full"
            assert int(caught.value.response.headers["retry-after"]) >= 1
        gate.touch()
        assert [each.result() for each in running] == ["w0 w1 w2 w3 w4"] * 3
    assert _ask(server, "a b") == "a b"
    assert server.status().active == 0


def test_heartbeats_come_while_a_request_is_queued_and_while_the_engine_is_silent(serve: Serve, tmp_path: Path) -> None:
    server, gate, beat = serve(slots=1, heartbeat=0.1), tmp_path / "gate", HEARTBEAT.decode()
    first = Reader(server, chat(f"words=2 gate={gate}"), "w0")
    second = Reader(server, chat("a"), beat)
    until(lambda: min(each.received.count(beat) for each in (first, second)) >= 3, what="heartbeats")
    gate.touch()
    assert "w1" in first.text()
    assert second.text().index(beat) < second.received.index('"content":"a"')
    assert second.received.endswith("data: [DONE]\n\n")


def test_heartbeats_come_while_the_model_loads(serve: Serve, tmp_path: Path) -> None:
    gate, beat = tmp_path / "gate", HEARTBEAT.decode()
    server = serve(FakeModel(gate=str(gate)), ready=False, heartbeat=0.1)
    reader = Reader(server, chat("a"), beat)
    gate.touch()
    assert reader.text().startswith(beat)
    assert '"content":"a"' in reader.received


def test_while_the_model_loads_there_is_503_for_those_who_do_not_wait(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    server = serve(FakeModel(gate=str(gate)), ready=False)
    with server.http() as client:
        for path, body in ((CHAT, chat()), (CHAT, chat(stream=True)), ("/v1/tokenize", {"prompt": "a"})):
            answer = client.post(path, json=body)
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "unavailable"
            assert "loading" in answer.json()["error"]["message"]
        short = client.post(CHAT, json=chat(), headers={"Prefer": "wait=0"})
        assert short.status_code == 503
        assert [client.get(path).status_code for path in ("/livez", "/startupz", "/readyz")] == [200, 503, 503]
        assert client.get("/readyz").json()["state"] == "loading"
        assert client.get("/v1/models").status_code == 200
        gate.touch()
        answer = client.post(CHAT, json=chat("a b"), headers={"Prefer": "respond-async, wait=10"})
        assert answer.json()["choices"][0]["message"]["content"] == "a b"
        assert [client.get(path).status_code for path in ("/livez", "/startupz", "/readyz")] == [200, 200, 200]


def test_waiting_has_an_end(serve: Serve) -> None:
    server = serve(FakeModel(load=20), ready=False)
    begin = monotonic()
    with server.http() as client:
        answer = client.post(CHAT, json=chat(), headers={"Prefer": "wait=1"})
    assert answer.status_code == 503
    assert 0.9 < monotonic() - begin < 3


def test_a_model_that_cannot_be_loaded_and_is_repaired(serve: Serve, tmp_path: Path) -> None:
    server = serve(FakeModel(fail="it is no model"), ready=False)
    server.wait_state("failed")
    with server.http() as client:
        for stream in (False, True):
            answer = client.post(CHAT, json=chat(stream=stream), headers={"Prefer": "wait=5"})
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["message"]) == (503, "model_unreadable", "it is no model")
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").json()["reason"] == "it is no model"
        assert server.status().reason == "it is no model"
        write_model(tmp_path / "fake.json")
        until(lambda: client.post(CHAT, json=chat("a"), headers={"Prefer": "wait=5"}).status_code == 200)
        assert _ask(server, "a b") == "a b"
    assert server.status().state == "ready"


def test_the_reason_is_told_while_the_model_is_tried_again(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    server = serve(FakeModel(gate=str(gate), fail="it is no model"), ready=False)
    server.wait_state("failed")
    gate.unlink()
    with server.http() as client:
        until(lambda: client.post(CHAT, json=chat()).is_error and server.status().state == "loading", what="a retry")
        for stream in (False, True):
            error = client.post(CHAT, json=chat(stream=stream)).json()["error"]
            assert (error["code"], error["message"]) == ("model_unreadable", "it is no model")
        counted = client.post("/v1/tokenize", json={"prompt": "a"}).json()["error"]
        assert (counted["code"], counted["message"]) == ("model_unreadable", "it is no model")
        probe = client.get("/readyz")
        assert (probe.status_code, probe.json()["state"], probe.json()["reason"]) == (503, "loading", "it is no model")


def test_a_gpu_that_is_not_there_is_an_error_of_its_own(serve: Serve) -> None:
    server = serve(FakeModel(fail="a GPU was asked for", fail_code="device_unavailable"), ready=False)
    server.wait_state("failed")
    with server.http() as client:
        answer = client.post(CHAT, json=chat("a"), headers={"Prefer": "wait=5"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["message"]) == (503, "device_unavailable", "a GPU was asked for")


def test_an_engine_that_dies_while_it_loads_is_no_endless_loop(serve: Serve) -> None:
    server = serve(FakeModel(die_loading=True), ready=False)
    server.wait_state("failed")
    status = server.status()
    assert "signal 9" in (status.reason or "")
    assert "dies while it loads" in (status.reason or "")
    assert (status.engine_pid, status.restarts) == (None, 0)
    assert server.log.read_text().count("llama_backend.engine: the fake dies") == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no model at all", "is not a GGUF file"),
        (gguf({"general.architecture": "mystery"}), "unknown model architecture: 'mystery'"),
        (gguf({}, keys=9), "damaged or cut off"),
        (b"", "too short"),
    ],
)
def test_the_real_engine_says_why_a_file_is_no_model(serve: Serve, tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "fake.json").write_bytes(content)
    server = serve(ready=False, module="llama_backend.engine")
    with server.http() as client:
        answer = client.post(CHAT, json=chat(), headers={"Prefer": "wait=20"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "model_unreadable")
        assert reason in error["message"]
        assert "\n" not in error["message"]
        assert client.get("/livez").status_code == 200


def test_a_file_that_is_cut_off_and_repaired(serve: Serve, tmp_path: Path, demo_model: Path) -> None:
    path = tmp_path / "fake.json"
    with demo_model.open("rb") as file:
        path.write_bytes(file.read(3_000_000))
    server = serve(ready=False, module="llama_backend.engine", context=256)
    with server.http(headers={"Prefer": "wait=20"}) as client:
        error = client.post(CHAT, json=chat()).json()["error"]
        assert error["code"] == "model_unreadable"
        assert "incomplete" in error["message"]
        path.unlink()
        path.symlink_to(demo_model)
        until(lambda: client.post(CHAT, json=chat(max_tokens=2)).status_code == 200)


def _ask(server: ServerProcess, text: str) -> str:
    with server.http() as client:
        answer = client.post(CHAT, json=chat(text))
        content: str = answer.json()["choices"][0]["message"]["content"]
        return content
