"""Checks of grammars: who is next, who is sent away, and what nobody waits for any more."""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import pytest

from llama_backend.account import Account
from llama_backend.errors import InternalError, InvalidRequest, QueueFull
from llama_backend.server.engines.grammar_queue import GrammarQueue
from llama_backend.server.engines.grammars import Grammars
from llama_backend.wire.grammar_verdict import Question, Verdict
from llama_backend.wire.sampling import SamplingParams

ALICE, BOB = Account("alice"), Account("bob")


class Slow(GrammarQueue):
    """Checks that wait until they are let go, by the names of their grammars."""

    def __init__(self) -> None:
        super().__init__("")
        self.started = Counter[str]()
        self.ended: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}

    async def _verdict(self, question: bytes) -> Verdict:
        name = msgspec.json.decode(question, type=Question).grammar or ""
        self.started[name] += 1
        try:
            await self.gates.setdefault(name, asyncio.Event()).wait()
        finally:
            self.ended.append(name)
        if name == "fault":
            raise InternalError("no process")
        return Verdict(error="bad") if name == "bad" else Verdict(grammar=name)


@pytest.fixture
def queue() -> Slow:
    return Slow()


@pytest.fixture
def grammars(queue: Slow) -> Grammars:
    found = Grammars("")
    found._queue = queue
    return found


def ask(grammars: Grammars, name: str, account: Account = ALICE) -> asyncio.Task[SamplingParams]:
    return asyncio.create_task(grammars.resolve(SamplingParams(grammar=name), account))


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_one_account_holds_up_no_other(grammars: Grammars, queue: Slow) -> None:
    hostile = [ask(grammars, f"hostile{number}") for number in range(20)]
    await settle()
    assert len(queue.started) == 2
    good = ask(grammars, "good", BOB)
    await settle()
    queue.gates["good"].set()
    assert (await asyncio.wait_for(good, 1)).grammar == "good"
    for task in hostile:
        task.cancel()
    await asyncio.wait(hostile)


async def test_those_who_ask_the_same_share_one_check_and_later_ones_its_verdict(
    grammars: Grammars, queue: Slow
) -> None:
    asked = [ask(grammars, "a") for _ in range(5)]
    await settle()
    queue.gates["a"].set()
    assert {(await task).grammar for task in asked} == {"a"}
    blocked = [ask(grammars, f"hostile{number}", account) for number in range(2) for account in (ALICE, BOB)]
    await settle()
    assert (await asyncio.wait_for(ask(grammars, "a", BOB), 1)).grammar == "a"
    assert queue.started["a"] == 1
    for task in blocked:
        task.cancel()


async def test_too_many_are_told_to_come_again(grammars: Grammars, queue: Slow) -> None:
    waiting = [ask(grammars, f"hostile{number}") for number in range(34)]
    await settle()
    with pytest.raises(QueueFull) as caught:
        await ask(grammars, "one more")
    assert caught.value.retry_after
    other = ask(grammars, "good", BOB)
    await settle()
    assert queue.started["good"] == 1
    for task in (*waiting, other):
        task.cancel()
    await asyncio.wait(waiting)


async def test_a_check_that_nobody_waits_for_is_ended(grammars: Grammars, queue: Slow) -> None:
    first, second, third, waiting = (ask(grammars, name) for name in ("a", "a", "b", "c"))
    await settle()
    first.cancel()
    waiting.cancel()
    await settle()
    assert queue.ended == []
    second.cancel()
    await settle()
    assert queue.ended == ["a"]
    queue.gates["b"].set()
    assert (await third).grammar == "b"
    await settle()
    assert "c" not in queue.started
    assert not queue._checks
    assert queue._running == len(queue._waiting) == 0


async def test_a_verdict_is_remembered_and_a_fault_is_not(grammars: Grammars, queue: Slow) -> None:
    for name in ("bad", "fault"):
        queue.gates[name] = asyncio.Event()
        queue.gates[name].set()
    for _ in range(2):
        with pytest.raises(InvalidRequest, match="bad"):
            await grammars.resolve(SamplingParams(grammar="bad"), ALICE)
        with pytest.raises(InternalError):
            await grammars.resolve(SamplingParams(grammar="fault"), ALICE)
    assert (queue.started["bad"], queue.started["fault"]) == (1, 2)


async def test_without_a_grammar_nothing_is_checked(grammars: Grammars, queue: Slow) -> None:
    assert await grammars.resolve(SamplingParams(), ALICE) == SamplingParams()
    assert not queue.started
