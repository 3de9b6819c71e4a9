"""Which request is prepared next, and what becomes of those that are cancelled."""

from __future__ import annotations

import threading

import pytest

from llama_backend.account import Account
from llama_backend.crash_notes import CrashNotes
from llama_backend.engine.messages.lanes import LONG, Lanes, Reply, Request, size_of
from llama_backend.wire.api import ChatMessage, SamplingParams
from llama_backend.wire.ipc import Accepted, Count, Embed, Event, Submit
from tests.support.wait import until

ALICE, BOB = Account("alice"), Account("bob")


class Desk:
    """Lanes whose work waits until it is let go."""

    def __init__(self) -> None:
        self.gates: dict[int, threading.Event] = {}
        self.started: list[int] = []
        self.sent: list[Event] = []
        self.proceeded: list[int] = []
        self.lanes = Lanes(self.answer, self.sent.append, CrashNotes())
        self.lanes.start()

    def answer(self, request: Request) -> Reply:
        self.started.append(request.id)
        if gate := self.gates.get(request.id):
            gate.wait(10)
        return Reply(Accepted(request.id, 1), lambda: self.proceeded.append(request.id))

    def blocked(self, request: Request) -> threading.Event:
        """Adds a request that is at work until the event is set."""
        gate = self.gates[request.id] = threading.Event()
        self.lanes.add(request)
        until(lambda: request.id in self.started)
        return gate


@pytest.fixture
def desk() -> Desk:
    return Desk()


def count(number: int, account: Account = ALICE, size: int = 1) -> Count:
    return Count(id=number, prompt="a" * size, account=account)


def test_a_short_text_does_not_wait_for_a_long_one(desk: Desk) -> None:
    gate = desk.blocked(count(1, size=LONG + 1))
    desk.lanes.add(count(2))
    until(lambda: desk.proceeded == [2])
    gate.set()
    until(lambda: desk.proceeded == [2, 1])
    assert desk.sent == [Accepted(2, 1), Accepted(1, 1)]


@pytest.mark.parametrize("size", [1, LONG + 1])
def test_an_account_with_many_texts_holds_up_no_other(desk: Desk, size: int) -> None:
    gate = desk.blocked(count(1, ALICE, size))
    for number in range(2, 9):
        desk.lanes.add(count(number, ALICE, size))
    desk.lanes.add(count(9, BOB, size))
    gate.set()
    until(lambda: len(desk.proceeded) == 9)
    assert desk.proceeded[:2] == [1, 9]


def test_what_is_cancelled_is_not_read_and_not_computed(desk: Desk) -> None:
    gate = desk.blocked(count(1))
    desk.lanes.add(count(2))
    desk.lanes.add(count(3))
    desk.lanes.cancel(2)
    desk.lanes.cancel(1)
    desk.lanes.cancel(99)
    gate.set()
    until(lambda: desk.proceeded == [3])
    assert desk.started == [1, 3]
    assert desk.sent == [Accepted(3, 1)]


def test_sizes() -> None:
    messages = [ChatMessage("user", "abc"), ChatMessage("user", "de")]
    requests: list[Request] = [
        count(1, size=7),
        Submit(id=1, sampling=SamplingParams(), messages=messages),
        Submit(id=1, sampling=SamplingParams(), prompt=[1, 2]),
        Embed(id=1, inputs=["abc", [1]]),
    ]
    assert [size_of(request) for request in requests] == [7, 5, 8, 7]
