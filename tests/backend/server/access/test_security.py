"""What a stranger may try: no key, a wrong one, a key in the URL, heads without end, bodies that trickle, odd paths."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

import pytest

from llama_backend.server.http import body
from llama_backend.server.listen import http_protocol
from tests.support.server.harness import CHAT, ServerProcess, chat, fake_config, free_port, serving

KEY = "sk-correct-horse-battery-staple"


@pytest.fixture(scope="module")
def keyed_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that asks for a key on TCP and logs JSON."""
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "keys").write_text(f"{KEY} name=alice\n")
    config = fake_config(
        folder, host="127.0.0.1", port=free_port(), api_key_file=str(folder / "keys"), log_format="json"
    )
    with serving(config, folder) as server:
        server.wait_state("ready")
        yield server


def send(server: ServerProcess, data: bytes) -> bytes:
    """What the server answers to bytes on TCP until it closes or says no more."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.config.port), timeout=10) as sock:
        with suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(data)
        with suppress(TimeoutError, ConnectionResetError):
            while part := sock.recv(65536):
                answer += part
    return answer


def status(answer: bytes) -> int:
    return int(answer.split()[1])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer sk-wrong"},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": KEY},
        {"X-API-Key": KEY},
        {"Cookie": f"key={KEY}"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/status", "/metrics", "/v1/streams/a-name-made-at-random"])
def test_without_the_key_there_is_nothing(keyed_server: ServerProcess, headers: dict[str, str], path: str) -> None:
    with keyed_server.tcp() as client:
        answer = client.get(path, headers=headers)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("name", ["api_key", "key", "access_token", "authorization"])
def test_a_key_in_the_url_is_no_key(keyed_server: ServerProcess, name: str) -> None:
    with keyed_server.tcp() as client:
        assert client.post(f"{CHAT}?{name}={KEY}", json=chat("a prompt of mine")).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "//v1/models",
        "/v1//models",
        "/v1/../v1/models",
        "/%76%31/models/",
        "/v1/models/../../metrics",
        "/livez/../v1/status",
        "/livez/v1/status",
        "/readyz;/v1/status",
        "/v1/models%00",
        "/..%2f..%2fetc/passwd",
        "http://elsewhere/v1/models",
    ],
)
def test_no_path_avoids_the_key(keyed_server: ServerProcess, path: str) -> None:
    answer = send(keyed_server, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) in (400, 401, 404)
    assert b'"data"' not in answer


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "CONNECT"])
def test_other_methods_tell_nothing(keyed_server: ServerProcess, method: str) -> None:
    answer = send(keyed_server, f"{method} /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) in (400, 401, 404, 405)


@pytest.mark.parametrize(
    "head",
    [
        b"X-Large: " + b"x" * 200_000 + b"\r\n",
        b"".join(b"X-%d: %s\r\n" % (number, b"x" * 100) for number in range(2000)),
    ],
    ids=["one", "many"],
)
@pytest.mark.parametrize("end", [b"\r\n", b""], ids=["complete", "endless"])
def test_headers_that_are_too_large(keyed_server: ServerProcess, head: bytes, end: bytes) -> None:
    assert status(send(keyed_server, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + head + end)) == 431


def test_a_url_that_is_too_large(keyed_server: ServerProcess) -> None:
    answer = send(keyed_server, b"GET /livez?" + b"x" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert status(answer) in (400, 431)


def test_a_body_that_is_smuggled_in(keyed_server: ServerProcess) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    both = "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n"
    assert status(send(keyed_server, (head + both).encode())) == 400


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that waits half a second for heads and bodies."""
    folder = tmp_path_factory.mktemp("impatient")
    (folder / "sitecustomize.py").write_text(
        f"import {http_protocol.__name__} as http_protocol, {body.__name__} as body\n"
        "http_protocol.HEAD_SECONDS = body.BODY_SECONDS = 0.5\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        config = fake_config(folder, host="127.0.0.1", port=free_port())
        with serving(config, folder) as server:
            server.wait_state("ready")
            yield server


@pytest.mark.parametrize("begin", [b"", b"GET /livez HTT", b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
def test_a_head_that_does_not_come(impatient: ServerProcess, begin: bytes) -> None:
    start = monotonic()
    with socket.create_connection(("127.0.0.1", impatient.config.port), timeout=10) as sock:
        if begin:
            sock.sendall(begin)
        assert sock.recv(100) == b""
    assert monotonic() - start < 3


def test_a_second_request_that_does_not_come(impatient: ServerProcess) -> None:
    whole = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", impatient.config.port), timeout=10) as sock:
        sock.sendall(whole)
        answer = b""
        while not answer.endswith(b'{"state":"ready"}'):
            part = sock.recv(1000)
            assert part
            answer += part
        sock.sendall(whole[:20])
        assert sock.recv(100) == b""


def test_a_body_that_does_not_come(impatient: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", impatient.config.port), timeout=10) as sock:
        sock.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{{".encode())
        answer = sock.recv(1000)
    assert status(answer) == 408
