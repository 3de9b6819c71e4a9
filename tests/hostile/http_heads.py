"""Heads of requests as raw bytes: what a strict parser takes for n requests this server answers no more than n times.

So nothing gets past a proxy as the body of one request, or as its headers, and is another request here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from time import monotonic

import h11
from hypothesis import strategies as st

from tests.hostile.served import REFUSALS, Served, check_error, served
from tests.hostile.trial import Check, Trial

_SECONDS = 10.0
_QUIET_SECONDS = 0.2
"""An answer that is due and has not come after as long is not waited for."""
_STEPS = (1, 7, 64, 1 << 20)
"""Bytes that are sent at a time; the first byte of a case chooses."""
_LONGEST_IN_STEPS = 2000
_BODY = b'{"prompt":"a"}'
_LAST = b"\r\n0\r\n\r\n"
_HIDDEN = b"GET /p2 HTTP/1.1\r\nHost: localhost\r\n\r\n"
_UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
_LONG = b"x" * 70_000

Request = tuple[bytes, bytes]
"""Its method and target."""


def mostly(good: Sequence[bytes], odd: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of those that are as they should be, and at times another one."""
    return st.integers(0, 15).flatmap(lambda number: st.sampled_from(odd if number == 15 else good))


METHODS = mostly([b"GET", b"POST"], [b"HEAD", b"OPTIONS", b"DELETE", b"PUT", b"PRI", b"get", b"CONNECT", b""])
TARGETS = mostly(
    [b"/p0", b"/p1", b"/p2", b"/livez", b"/v1/models", b"/v1/tokenize"],
    [
        *(b"/v1/status", b"/v1/models/", b"/p%2e%2e%00", b"/v1/models/%ff", b"//p0", b"/../p0", b"/p0?" + _LONG),
        *(b"*", b"http://localhost/p0", b"http://evil.example/p0", b"evil.example:80", b"/p 0", b"/p\xff", b"/p\0"),
        *(b"/v1/streams/aaaaaaaaaaaaaaaa", b""),
    ],
)
VERSIONS = mostly([b"HTTP/1.1"], [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b""])
ENDS = st.integers(0, 63).flatmap(lambda n: st.sampled_from([b"\n", b"\r", b"\r\r\n", b""] if n == 63 else [b"\r\n"]))
NAMES = st.sampled_from(
    [
        *(b"Host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"Trailer", b"TE"),
        *(b"Authorization", b"Origin", b"Sec-Fetch-Site", b"Prefer", b"X-Request-Timeout", b"X-Resumable"),
        *(b"Last-Event-ID", b"Content-Type", b"Content-Encoding", b"X", b"content-length", b"Transfer-Encoding "),
        *(b" X", b"X\0", b"X\xff", b"", _LONG),
    ]
)
VALUES = st.sampled_from(
    [
        *(b"localhost", b"localhost:80", b"evil.example", b"0", b"14", b"5", b"+14", b"0x0e", b"14, 14", b"9" * 30),
        *(b"-1", b"1_4", b"chunked", b"Chunked", b"chunked, chunked", b"gzip, chunked", b"identity", b"\x0bchunked"),
        *(b"chunked\0", b"close", b"keep-alive", b"Upgrade", b"h2c", b"websocket", b"100-continue", b"trailers"),
        *(b"http://localhost", b"null", b"cross-site", b"same-origin", b"Bearer sk-x", b"wait=1", b"nan", b"-0.5"),
        *(b"1e-9", b"a" * 20, b"9" * 20, b"", b" ", b"\t", b"a\r\n b", b"a\rb", b"\xff\xfe", b"\0", _LONG),
    ]
)
FRAMED = st.sampled_from(
    [
        *((b"", b""),) * 3,
        *((b"Content-Length: 14", _BODY), (b"Content-Length: 38", _HIDDEN), (b"Content-Length: 0", b"")),
        *((b"Transfer-Encoding: chunked", b"e\r\n" + _BODY + _LAST), (b"Transfer-Encoding: Chunked", b"0\r\n\r\n")),
        (b"Transfer-Encoding: chunked", b"e;a=b\r\n" + _BODY + b"\r\n0\r\nX: y\r\nHost: z\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"26\r\n" + _HIDDEN + _LAST),
    ]
)
"""A header that says how long the body is, and that body."""
ODDLY_FRAMED = st.tuples(
    st.sampled_from([b"Content-Length: 14", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"]),
    st.sampled_from(
        [
            *(b"e\n" + _BODY + b"\n0\n\n", b"f" * 18 + b"\r\n", b"-1\r\n", b"0e\r\n" + _BODY + _LAST),
            *(b"e \r\n" + _BODY + _LAST, _HIDDEN, b"0\r\n\r\n" + _HIDDEN, b"e\r\n" + _BODY + _LAST, _BODY),
        ]
    ),
)
PIECES = st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b"\x7f", b"\xff", b"%", b"0", b"e"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request, mostly with a Host and a body that fits; or a few of its parts are not as they should be."""
    line = b" ".join([draw(METHODS), draw(TARGETS), draw(VERSIONS)])
    length, body = draw(ODDLY_FRAMED if draw(st.integers(0, 9)) == 9 else FRAMED)
    odd = draw(st.lists(st.tuples(NAMES, VALUES), max_size=2)) if draw(st.integers(0, 3)) == 3 else []
    fields = [draw(mostly([b"Host: localhost"], [b"Host: x", b"Host:", b""])), length]
    fields += [name + b": " + value for name, value in odd]
    head = b"".join(part + draw(ENDS) for part in (line, *filter(None, draw(st.permutations(fields)))))
    return head + draw(ENDS) + body


@st.composite
def connections(draw: st.DrawFn) -> bytes:
    """What one client sends: requests, perhaps with some other bytes in them; the first byte says how it sends them."""
    data = bytearray(b"".join(draw(st.lists(requests(), min_size=1, max_size=4))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 0, 0, 1, 3]))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(PIECES)
    return bytes([draw(st.integers(0, len(_STEPS) - 1))]) + bytes(data)


def strict(data: bytes) -> list[Request]:
    """The methods and targets of the requests that another parser sees, up to the first that is none.

    As RFC 9112 has it (2.2) empty lines before a request do not count.
    """
    found: list[Request] = []
    with suppress(h11.ProtocolError):
        while data := data.lstrip(b"\r\n"):
            reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
            reader.receive_data(data)
            while not isinstance(event := reader.next_event(), h11.EndOfMessage):
                if isinstance(event, h11.Request):
                    found.append((event.method, event.target))
                elif not isinstance(event, h11.Data):
                    return found
            reader.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            reader.send(h11.EndOfMessage())
            data = b"" if reader.our_state is h11.MUST_CLOSE else reader.trailing_data[0]
    return found


def exchange(port: int, data: bytes, step: int, wanted: int) -> bytes:
    """What is answered to a client that sends its bytes, waits a while for as many answers, and sends no more."""
    answer, end = b"", monotonic() + _SECONDS
    with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as sock, suppress(ConnectionError):
        _send(sock, data, step)
        sock.settimeout(_QUIET_SECONDS)
        with suppress(TimeoutError):
            while answer.count(b"HTTP/1.1 ") < wanted and (part := sock.recv(1 << 16)):
                answer += part
        sock.settimeout(_SECONDS)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
        while part := sock.recv(1 << 16):
            answer += part
            assert monotonic() < end
    return answer


def _send(sock: socket.socket, data: bytes, step: int) -> None:
    """Sends as many bytes at a time; the server may be done with it before."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    size = step if len(data) < _LONGEST_IN_STEPS else len(data)
    with suppress(ConnectionError):
        for at in range(0, len(data), size or 1):
            sock.sendall(data[at : at + size])


def answers(data: bytes, requests: list[Request]) -> Iterator[tuple[int, bytes]]:
    """The status and body of each answer that is complete; raises where they are no answers to those requests."""
    for number in count():
        if not data:
            return
        method = requests[number][0] if number < len(requests) else b"GET"
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
        reader.send(h11.Request(method=b"HEAD" if method == b"HEAD" else b"GET", target="/", headers=[("Host", "x")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(data)
        status, body = 0, b""
        while not isinstance(event := reader.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                return
            if isinstance(event, h11.Response):
                status = event.status_code
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
        yield status, body
        data = reader.trailing_data[0]


def check_answers(data: bytes, answer: bytes) -> None:
    """Each answer is to the request that a strict parser sees there; a refusal may come at any place, as the last."""
    expected = strict(data)
    found = list(answers(answer, expected))
    for number, (status, body) in enumerate(found):
        assert status in REFUSALS | {200, 204}, answer
        is_head = number < len(expected) and expected[number][0] == b"HEAD"
        error = check_error(body) if status in REFUSALS and not is_head else None
        is_last_word = number == len(found) - 1 and status in (400, 431)
        assert number < len(expected) or is_last_word, (expected, answer)
        if error is not None and error["code"] == "not_found" and b"/p" in expected[number][1]:
            assert error["message"].startswith(expected[number][0].decode()), (expected, answer)


@contextmanager
def opened(folder: Path) -> Iterator[Check]:
    with served(folder) as target:
        yield lambda case: _try(target, case)


def _try(target: Served, case: bytes) -> None:
    assert target.server.config.port
    step, data = _STEPS[case[0] % len(_STEPS)] if case else 1, case[1:]
    check_answers(data, exchange(target.server.config.port, data, step, len(strict(data))))
    target.check()


HTTP_HEADS = Trial(
    "http-heads",
    connections(),
    opened,
    examples=300,
    known=(
        b"\3POST /v1/tokenize HTTP/1.1\r\nHost: localhost\r\n" + _UPGRADE + b"Content-Length: 60\r\n\r\n" + _HIDDEN,
    ),
)
