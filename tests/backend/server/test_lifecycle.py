"""How a server ends: drained, at once, when idle, before it has begun; and its engine with it."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import msgspec
import pytest

from tests.backend.server.conftest import Serve
from tests.backend.server.http.test_metrics_page import metrics
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, Reader, ServerProcess, chat, fake_config, free_port, runs
from tests.support.wait import until

AT_ONCE = ["draining", "ending at once"]
"""What the first and the second signal do."""


def test_a_running_answer_is_completed_and_new_ones_are_refused(serve: Serve, tmp_path: Path) -> None:
    server, gate = serve(host="127.0.0.1", port=free_port()), tmp_path / "gate"
    reader = Reader(server, chat(f"words=20 gate={gate}"), "w0")
    server.signal(signal.SIGTERM)
    server.wait_state("draining")
    with server.tcp() as tcp, server.http() as unix:
        for client in (tcp, unix):
            for stream in (False, True):
                answer = client.post(CHAT, json=chat(stream=stream))
                assert answer.status_code == 503
                assert int(answer.headers["retry-after"]) >= 1
                assert "shutting down" in answer.json()["error"]["message"]
        assert tcp.get("/readyz").status_code == 503
        assert tcp.get("/livez").status_code == 200
    gate.touch()
    assert server.process.wait(20) == 0
    assert "w19" in reader.text()
    assert reader.error is None
    assert reader.received.endswith("data: [DONE]\n\n")
    assert not Path(str(server.config.socket)).exists()


def test_an_idle_server_ends_at_once(serve: Serve) -> None:
    server = serve()
    engine = server.status().engine_pid
    begin = monotonic()
    server.signal(signal.SIGTERM)
    assert server.process.wait(5) == 0
    assert monotonic() - begin < 2
    assert engine is not None
    assert not runs(engine)


def test_ctrl_c_is_the_same(serve: Serve) -> None:
    server = serve()
    server.signal(signal.SIGINT)
    assert server.process.wait(10) == 0


def test_a_second_signal_ends_at_once(serve: Serve) -> None:
    server = serve()
    reader = Reader(server, chat("words=1000 delay=0.1"), "w0")
    engine = server.status().engine_pid
    server.signal(signal.SIGTERM)
    server.wait_state("draining")
    begin = monotonic()
    server.signal(signal.SIGTERM)
    assert server.process.wait(5) == 0
    assert monotonic() - begin < 2
    assert "[DONE]" not in reader.text()
    assert engine is not None
    assert not runs(engine)


@pytest.mark.parametrize(
    ("body", "effects"),
    [(b'{"prompt":"a b"}', ["draining"]), (b'{"prompt":"a b"}', AT_ONCE), (b"{", AT_ONCE)],
    ids=["waiting, at the end of draining", "waiting, at once", "not complete, at once"],
)
def test_a_request_that_cannot_be_answered_any_more_is_told(serve: Serve, body: bytes, effects: list[str]) -> None:
    server = serve(FakeModel(load=60), ready=False, drain=1.0)
    with server.raw() as sock:
        head = b"POST /v1/tokenize HTTP/1.1\r\nHost: x\r\nPrefer: wait=60\r\nContent-Length: 16\r\n\r\n"
        sock.sendall(head + body)
        until(lambda: server.status().active == body.endswith(b"}"), what="the request")
        for effect in effects:
            server.signal(signal.SIGTERM)
            server.wait_log(f"SIGTERM: {effect}")
        answer = b"".join(iter(lambda: sock.recv(10_000), b""))
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"shutting down" in answer
    assert server.process.wait(10) == 0
    assert "Traceback" not in server.log.read_text()


def test_a_stream_that_nobody_reads_is_cut_off_at_the_end(serve: Serve) -> None:
    server = serve()
    with server.raw() as sock:
        body = msgspec.json.encode(chat("words=100000", stream=True))
        sock.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (CHAT.encode(), len(body)) + body)
        sock.recv(1)
        until(lambda: metrics(server)("generated_tokens_total") > 20_000, what="more than all buffers hold")
        server.signal(signal.SIGTERM)
        server.wait_state("draining")
        server.signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert "Traceback" not in server.log.read_text()


def test_draining_has_an_end(serve: Serve) -> None:
    server = serve(drain=0.5)
    reader = Reader(server, chat("words=1000 delay=0.1"), "w0")
    server.signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert '"code":"unavailable"' in reader.text()
    assert reader.error is None
    assert "shutting down" in reader.received


def test_a_signal_while_the_model_loads(serve: Serve) -> None:
    server = serve(FakeModel(load=30), ready=False)
    server.signal(signal.SIGTERM)
    assert server.process.wait(3) == 0


def test_a_signal_before_the_server_listens_to_signals(tmp_path: Path) -> None:
    config = fake_config(tmp_path)
    server = ServerProcess(config, tmp_path / "log")
    until(lambda: Path(str(config.socket)).exists(), what="the socket")
    server.signal(signal.SIGTERM)
    assert server.process.wait(10) == 0
    assert not Path(str(config.socket)).exists()


def test_a_server_that_nobody_asks_ends(serve: Serve) -> None:
    server = serve(idle_exit=1.0, ready=False)
    engine = server.status().engine_pid
    until(lambda: not Path(str(server.config.socket)).exists(), what="the end of the socket")
    assert server.process.wait(10) == 0
    assert engine is not None
    assert not runs(engine)
    assert "no request" in server.log.read_text()


def test_a_request_keeps_a_server_alive(serve: Serve) -> None:
    server = serve(idle_exit=1.0, ready=False)
    with server.http(headers={"Prefer": "wait=10"}) as client:
        answer = client.post(CHAT, json=chat("words=3 delay=0.4")).json()
        assert answer["choices"][0]["finish_reason"] == "stop"
        for _ in range(6):
            sleep(0.2)
            begin = monotonic()
            assert client.get("/v1/models").status_code == 200
    assert server.process.wait(10) == 0
    assert monotonic() - begin > 1.0


def test_status_alone_keeps_no_server_alive(serve: Serve) -> None:
    server = serve(idle_exit=0.5, ready=False)
    with suppress(OSError):
        for _ in range(200):
            with server.raw() as sock:
                sock.sendall(b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
                sock.recv(10)
            sleep(0.05)
    assert server.process.wait(10) == 0


def test_whoever_connected_before_the_idle_end_is_served(serve: Serve) -> None:
    server = serve(idle_exit=0.5, ready=False)
    sock = server.raw()
    with sock:
        until(lambda: not Path(str(server.config.socket)).exists(), what="the end of the socket")
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200")
    assert server.process.wait(10) == 0


def test_the_engine_of_a_killed_server_ends_by_itself(serve: Serve) -> None:
    server = serve()
    engine = server.status().engine_pid
    assert engine is not None
    server.process.kill()
    server.process.wait()
    until(lambda: not runs(engine), 3, "the end of the engine")
