"""Whoever goes away frees what was theirs, at any point."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from time import monotonic

import pytest

from tests.backend.server.conftest import Serve
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, ServerProcess, chat
from tests.support.wait import until

LONG = "words=1000 delay=0.05"


def open_request(
    server: ServerProcess, text: str, stream: bool, prefer: str = "wait=0", after: bytes = b""
) -> socket.socket:
    body = json.dumps(chat(text, stream=stream)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nPrefer: {prefer}\r\nContent-Length: {len(body)}\r\n\r\n"
    sock = server.raw()
    sock.sendall(head.encode() + body + after)
    return sock


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    return serve(slots=2)


@pytest.mark.parametrize("stream", [True, False])
def test_in_the_middle_of_an_answer(server: ServerProcess, stream: bool) -> None:
    with open_request(server, LONG, stream) as sock:
        until(lambda: server.status().running == 1, 5, "the answer")
        assert not stream or sock.recv(10)
    server.wait_idle(1)


@pytest.mark.parametrize("stream", [True, False])
def test_with_another_request_behind_it(server: ServerProcess, stream: bool) -> None:
    following = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with open_request(server, LONG, stream, after=following) as sock:
        until(lambda: server.status().running == 1, 5, "the answer")
        assert not stream or sock.recv(10)
    server.wait_idle(2)
    assert "Traceback" not in server.log.read_text()


@pytest.mark.parametrize("stream", [True, False])
def test_in_the_queue(server: ServerProcess, stream: bool) -> None:
    running = [open_request(server, LONG, True) for _ in range(2)]
    until(lambda: server.status().running == 2, 5, "the answers")
    with open_request(server, LONG, stream):
        until(lambda: server.status().waiting == 1, 5, "the queue")
    until(lambda: server.status().waiting == 0, 1, "the end of the queue")
    status = server.status()
    assert (status.running, status.active) == (2, 2)
    for sock in running:
        sock.close()
    server.wait_idle(1)


@pytest.mark.parametrize("stream", [True, False])
def test_while_the_model_loads(serve: Serve, stream: bool) -> None:
    server = serve(FakeModel(load=30), ready=False)
    with open_request(server, LONG, stream, "wait=60"):
        until(lambda: server.status().active == 1, 5, "the request")
    until(lambda: server.status().active == 0, 1, "the end of the request")


def test_while_the_body_is_on_its_way(server: ServerProcess) -> None:
    for _ in range(10):
        with server.raw() as sock:
            sock.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{{".encode())
    server.wait_idle(1)
    assert "ERROR" not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_a_hundred_at_once_leave_no_slot_taken(server: ServerProcess) -> None:
    begin = monotonic()
    for number in range(100):
        with open_request(server, LONG, stream=number % 2 == 0) as sock:
            if number % 3 == 0:
                sock.settimeout(0.01)
                with suppress(TimeoutError):
                    sock.recv(100)
    server.wait_idle(3)
    assert monotonic() - begin < 10
    with server.http() as client:
        assert client.post(CHAT, json=chat("a b")).json()["choices"][0]["message"]["content"] == "a b"
    assert server.status().restarts == 0
    assert "ERROR" not in server.log.read_text()
