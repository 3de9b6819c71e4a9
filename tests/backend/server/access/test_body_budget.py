"""The memory for bodies: bounded for all, and shared so that nobody keeps others out."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.account import Account
from llama_backend.errors import BodiesFull
from llama_backend.server.access.body_budget import MOST_BYTES, SMALL_BYTES, BodyBudget, BodyShare
from llama_backend.server.engines.watched_process import resident_bytes
from tests.backend.server.access.test_security import status
from tests.backend.server.conftest import Serve
from tests.support.server.harness import CHAT, ServerProcess, chat, free_port

MIB = 1024 * 1024
HELD = 100


def filled(budget: BodyBudget, stack: ExitStack, account: str) -> float:
    """Fills bodies of one account until one is refused; returns what they hold, in MiB."""
    held: list[BodyShare] = []
    with suppress(BodiesFull):
        while True:
            held.append(stack.enter_context(budget.opened(Account(account))))
            for _ in range(40):
                held[-1].grow(MIB // 10)
    return sum(body.size for body in held) / MIB


def test_one_account_gets_a_half_and_others_parts_of_what_is_left() -> None:
    budget = BodyBudget(100 * MIB)
    with ExitStack() as stack:
        for part in (50, 25, 12.5):
            assert filled(budget, stack, f"account{part}") == pytest.approx(part, abs=0.3)
        with budget.opened(Account("late")) as body:
            body.grow(4 * MIB)
    with budget.opened(Account("account50")) as body:
        body.grow(49 * MIB)


def test_a_small_body_always_has_room() -> None:
    budget = BodyBudget(10 * MIB)
    with ExitStack() as stack:
        filled(budget, stack, "full")
        small = stack.enter_context(budget.opened(Account("full")))
        small.grow(SMALL_BYTES)
        with pytest.raises(BodiesFull):
            small.grow(1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(SMALL_BYTES + 1, MIB)), max_size=50))
def test_all_together_never_have_more_than_there_is(sizes: list[tuple[int, int]]) -> None:
    budget, total = BodyBudget(4 * MIB), 0
    with ExitStack() as stack:
        for account, size in sizes:
            with suppress(BodiesFull), ExitStack() as inner:
                inner.enter_context(budget.opened(Account(f"account{account}"))).grow(size)
                stack.push(inner.pop_all())
                total += size
            assert total <= 4 * MIB
    with budget.opened(Account("any")) as body:
        body.grow(2 * MIB)


def begun(server: ServerProcess, size: int) -> socket.socket:
    """A request whose body lacks its last byte; the server may have refused it before that."""
    sock = socket.create_connection(("127.0.0.1", server.config.port), timeout=10)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size + 1}\r\n\r\n"
    with suppress(OSError):
        sock.sendall(head.encode() + b" " * size)
    return sock


def answers(sock: socket.socket) -> bytes:
    """What has come on a connection so far."""
    sock.setblocking(False)
    with suppress(OSError):
        return sock.recv(65536)
    return b""


def test_many_bodies_that_do_not_end_take_bounded_memory_and_keep_nobody_out(serve: Serve) -> None:
    server = serve(host="127.0.0.1", port=free_port())
    before = resident_bytes(server.pid)
    with ExitStack() as stack:
        socks = [stack.enter_context(begun(server, 4 * MIB - 2)) for _ in range(HELD)]
        with server.tcp() as client:
            assert client.post(CHAT, json=chat("a b")).status_code == 200
        refused = [answer for sock in socks if (answer := answers(sock))]
        assert resident_bytes(server.pid) - before < MOST_BYTES
    assert len(refused) > HELD / 2
    for answer in refused:
        assert status(answer) == 503
        assert b"retry-after: 5" in answer
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "bodies_full"
    server.wait_idle()


def test_a_body_counts_until_its_answer_has_ended(serve: Serve, tmp_path: Path) -> None:
    server, gate = serve(slots=1, context=10_000_000), tmp_path / "gate"
    text = f"words=2 gate={gate} " + "x" * 3 * MIB
    with ExitStack() as stack:
        for _ in range(25):
            client = stack.enter_context(server.http(headers={"Connection": "close"}))
            answer = stack.enter_context(client.stream("POST", CHAT, json=chat(text, stream=True)))
            if answer.status_code == 503:
                break
        assert answer.status_code == 503
        gate.touch()
    server.wait_idle()
    with server.http() as client:
        assert client.post(CHAT, json=chat(text)).status_code == 200
