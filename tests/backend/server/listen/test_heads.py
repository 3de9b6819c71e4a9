"""Heads that a proxy could read in another way than this server, and what comes without end beside bodies."""

from __future__ import annotations

import socket
from contextlib import suppress
from time import monotonic

import pytest

from llama_backend.server.engines.watched_process import resident_bytes
from llama_backend.server.listen.http_protocol import HEAD_FIELDS
from tests.backend.server.access.test_security import impatient as impatient
from tests.backend.server.access.test_security import send, status
from tests.support.server.harness import CHAT, ServerProcess
from tests.support.wait import until

HOST = b"Host: localhost\r\n"
GET = b"GET /v1/models HTTP/1.1\r\n" + HOST
BODY = b'{"prompt":"a b"}'
POST = b"POST /v1/tokenize HTTP/1.1\r\n" + HOST
LENGTH = b"Content-Length: 16\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CLOSE = b"Connection: close\r\n"
UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
REFUSED = {
    "two hosts": GET + HOST + b"\r\n",
    "two keys": GET + b"Authorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
    "two origins": GET + b"Origin: http://localhost\r\nOrigin: http://evil.example\r\n\r\n",
    "two lengths": POST + LENGTH + LENGTH + b"\r\n" + BODY,
    "two other lengths": POST + LENGTH + b"Content-Length: 4\r\n\r\n" + BODY,
    "a length with a sign": POST + b"Content-Length: +16\r\n\r\n" + BODY,
    "a length and chunks": POST + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\n" + LENGTH + b"\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "zipped chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks that end": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "almost chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked after a tab": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a chunk with line feeds alone": CHUNKED + b"10\n" + BODY + b"\n0\n\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "the URL of another host": b"GET http://evil.example/v1/models HTTP/1.1\r\n" + HOST + b"\r\n",
    "a proxy's request": b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n",
    "a line that is folded": GET + b"X: a\r\n b\r\n\r\n",
    "a host that is folded": b"GET /v1/models HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n",
    "a zero byte": GET + b"X: a\0b\r\n\r\n",
    "a carriage return": GET + b"X: a\rb\r\n\r\n",
    "line feeds alone": b"GET /v1/models HTTP/1.1\nHost: localhost\n\n",
    "HTTP/0.9": b"GET /v1/models\r\n\r\n",
    "HTTP/1.2": b"GET /v1/models HTTP/1.2\r\n" + HOST + b"\r\n",
    "HTTP/2.0": b"GET /v1/models HTTP/2.0\r\n" + HOST + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    "an upgrade with a body": POST + UPGRADE + LENGTH + b"\r\n" + BODY,
    "an upgrade with chunks": POST + UPGRADE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}
SERVED = {
    "an upgrade that is passed over": GET + UPGRADE + b"\r\n",
    "a web socket": GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n",
    "the URL of this host": b"GET http://localhost/v1/models HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
    "HTTP/1.0": b"GET /v1/models HTTP/1.0\r\n" + HOST + b"\r\n",
    "chunks": CHUNKED.replace(HOST, HOST + CLOSE) + b"10;x=y\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a body that waits": POST + CLOSE + b"Expect: 100-continue\r\n" + LENGTH + b"\r\n" + BODY,
    "as many headers as may be": GET + CLOSE + b"X: y\r\n" * (HEAD_FIELDS - 2) + b"\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_follows(shared: ServerProcess, name: str) -> None:
    answer = send(shared, REFUSED[name] + GET + b"\r\n")
    assert answer.count(b"HTTP/1.1 4") == 1
    assert b"HTTP/1.1 2" not in answer
    assert status(answer) == 400
    assert b'"code":"invalid_request"' in answer


@pytest.mark.parametrize("name", SERVED)
def test_what_is_odd_but_clear_is_served(shared: ServerProcess, name: str) -> None:
    answer = send(shared, SERVED[name])
    assert status(answer.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")) == 200


def test_more_headers_than_may_be(shared: ServerProcess) -> None:
    assert status(send(shared, GET + b"X: y\r\n" * HEAD_FIELDS + b"\r\n")) == 431


def test_after_an_upgrade_nothing_is_taken_for_a_request(shared: ServerProcess) -> None:
    """A proxy that takes what follows for the upgraded protocol, or for a body, must not let a request through."""
    with socket.create_connection(("127.0.0.1", shared.config.port), timeout=10) as sock:
        sock.sendall(POST + UPGRADE + b"Content-Length: 200\r\n\r\n")
        sock.settimeout(0.2)
        with suppress(TimeoutError):
            sock.recv(10)
        sock.settimeout(10)
        answer = b""
        with suppress(OSError):
            sock.sendall(GET + b"\r\n")
            while part := sock.recv(65536):
                answer += part
    assert b'"data"' not in answer


def test_a_trailer_says_nothing(shared: ServerProcess) -> None:
    body = b"10\r\n" + BODY + b"\r\n0\r\nX-Resumable: no\r\nOrigin: http://evil.example\r\n\r\n"
    assert status(send(shared, CHUNKED.replace(HOST, HOST + CLOSE) + body)) == 200


@pytest.mark.parametrize(
    "begin",
    [
        CHUNKED + b"10\r\n" + BODY + b"\r\n0\r\nX: ",
        CHUNKED + b"10\r\n" + BODY + b"\r\n10;x=",
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
    ids=["a trailer", "an extension", "a trailer that nobody reads"],
)
def test_what_has_no_end_takes_no_memory(shared: ServerProcess, begin: bytes) -> None:
    before, sent = resident_bytes(shared.pid), 0
    with socket.create_connection(("127.0.0.1", shared.config.port), timeout=10) as sock:
        sock.sendall(begin)
        with suppress(BrokenPipeError, ConnectionResetError):
            while sent < 64 << 20:
                sent += sock.send(b"x" * (1 << 16))
    assert sent < 64 << 20
    assert resident_bytes(shared.pid) - before < 16 << 20


def test_a_refusal_is_no_part_of_another_answer(shared: ServerProcess) -> None:
    body = b'{"messages":[{"role":"user","content":"words=1000 delay=0.05"}],"stream":true}'
    head = b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n" % (CHAT.encode(), HOST, len(body))
    with socket.create_connection(("127.0.0.1", shared.config.port), timeout=10) as sock:
        sock.sendall(head + body)
        answer = b""
        while b'"w0"' not in answer:
            answer += sock.recv(65536)
        sock.sendall(b"\0 no request\r\n\r\n")
        with suppress(ConnectionResetError):
            while part := sock.recv(65536):
                answer += part
    assert b"HTTP/1.1 400" not in answer
    shared.wait_idle()


@pytest.mark.parametrize("part", [b"\r\n", b"x"], ids=["empty lines", "a body that nobody wants"])
def test_after_an_answer_what_leads_to_nothing_has_an_end(impatient: ServerProcess, part: bytes) -> None:
    start = monotonic()
    with socket.create_connection(("127.0.0.1", impatient.config.port), timeout=10) as sock:
        length = b"Content-Length: 1000000\r\n" if part == b"x" else b""
        sock.sendall(b"GET /livez HTTP/1.1\r\n" + HOST + length + b"\r\n")
        assert sock.recv(1000)

        def closed() -> bool:
            try:
                sock.sendall(part)
            except OSError:
                return True
            return False

        until(closed, what="the end of the connection")
    assert monotonic() - start < 8


def test_strangers_write_nothing_into_the_log(shared: ServerProcess) -> None:
    size = shared.log.stat().st_size
    for request in (*REFUSED.values(), *SERVED.values()):
        send(shared, request + GET + CLOSE + b"\r\n")
    assert shared.log.read_bytes()[size:] == b""
