"""Fairness between accounts: by tables, and by what must hold whoever comes when."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.account import Account
from llama_backend.engine.sequence import Sequence
from llama_backend.fair_queue import FairQueue
from tests.support.engine.fakes import Bench, new_sequence

A, B, TWICE = Account("a"), Account("b"), Account("twice", weight=2)


def sequence(number: int, account: Account = A) -> Sequence:
    return new_sequence(number, [1], account=account)


def served(queue: FairQueue[Sequence], cost: float = 10, most: int = 100) -> str:
    """The first letters of the accounts in the order in which they are served, one at a time."""
    order = ""
    while (found := queue.next()) is not None and len(order) < most:
        queue.take(found)
        queue.charge(found, cost)
        queue.done(found)
        order += found.account.name[0]
    return order


def queue_of(*accounts: Account) -> FairQueue[Sequence]:
    queue = FairQueue[Sequence]()
    for number, account in enumerate(accounts):
        queue.add(sequence(number, account))
    return queue


@pytest.mark.parametrize(
    ("waiting", "order"),
    [
        ([A] * 4, "aaaa"),
        ([A] * 5 + [B], "abaaaa"),
        ([A] * 3 + [B] * 3, "ababab"),
        ([A] * 4 + [TWICE] * 4, "attattaa"),
        ([], ""),
    ],
)
def test_the_order_of_those_who_wait(waiting: list[Account], order: str) -> None:
    assert served(queue_of(*waiting)) == order


def test_within_an_account_it_is_first_come_first_served() -> None:
    queue = queue_of(A, B, A, A)
    order = []
    while (found := queue.next()) is not None:
        queue.take(found)
        queue.charge(found, 1)
        order.append(found.id)
    assert [number for number in order if number != 1] == [0, 2, 3]


def test_who_is_admitted_at_once_takes_turns_before_anything_is_computed() -> None:
    queue, order = queue_of(A, A, A, B, B), ""
    while (found := queue.next()) is not None:
        queue.take(found)
        order += found.account.name
    assert order == "ababa"


def test_nobody_saves_up_a_claim_and_nobody_pays_for_having_been_alone() -> None:
    queue = queue_of(*[A] * 30)
    assert served(queue, most=20) == "a" * 20
    for number in range(5):
        queue.add(sequence(100 + number, B))
    assert served(queue, most=8) in ("babababa", "abababab")


def test_more_than_an_account_may_run_waits_and_lets_others_pass() -> None:
    few = Account("few", max_running=1)
    queue = queue_of(few, few, B)
    first = queue.next()
    assert first is not None
    queue.take(first)
    second = queue.next()
    assert second is not None
    assert second.account is B
    queue.take(second)
    assert (queue.next(), len(queue)) == (None, 1)
    queue.done(first)
    third = queue.next()
    assert third is not None
    assert third.id == 1


def test_who_was_put_back_is_next_whatever_the_account_had() -> None:
    queue = queue_of(A, B)
    first = queue.next()
    assert first is not None
    queue.take(first)
    queue.charge(first, 1000)
    queue.put_back(first)
    assert (queue.next(), len(queue), first in queue) == (first, 2, True)
    queue.take(first)
    queue.put_back(first)
    queue.remove(first)
    assert served(queue) == "b"


actions = st.lists(st.tuples(st.sampled_from("adrpct"), st.integers(0, 3), st.integers(1, 50)), max_size=120)


@given(actions)
def test_nobody_is_lost_and_none_waits_without_reason(steps: list[tuple[str, int, int]]) -> None:
    accounts = [A, B, TWICE, Account("few", max_running=2)]
    queue, waiting, running = FairQueue[Sequence](), list[Sequence](), list[Sequence]()
    for number, (action, index, cost) in enumerate(steps):
        if action == "a":
            waiting.append(sequence(number, accounts[index]))
            queue.add(waiting[-1])
        elif action == "r" and waiting:
            queue.remove(waiting.pop(index % len(waiting)))
        elif action == "d" and running:
            queue.done(running.pop(index % len(running)))
        elif action == "p" and running:
            waiting.append(running.pop(index % len(running)))
            queue.put_back(waiting[-1])
        elif action == "c" and running:
            queue.charge(running[index % len(running)], cost)
        elif action == "t" and (found := queue.next()) is not None:
            queue.take(found)
            waiting.remove(found)
            running.append(found)
        assert len(queue) == len(waiting)
        assert set(queue) == set(waiting)
        assert sum(each.account.max_running is not None for each in running) <= 2
        if queue.next() is None:
            assert all(each.account.max_running for each in waiting)


@given(
    st.lists(st.sampled_from([(A, 5), (A, 40), (B, 5), (B, 40), (TWICE, 20), (TWICE, 3)]), min_size=30, max_size=120),
    st.integers(1, 4),
)
def test_those_who_always_wait_get_tokens_by_weight(requests: list[tuple[Account, int]], places: int) -> None:
    queue, running, got = FairQueue[Sequence](), list[Sequence](), defaultdict[str, float](float)
    costs = {}
    for number, (account, cost) in enumerate(requests):
        costs[number] = cost
        queue.add(sequence(number, account))
    present = {account for account, _ in requests}
    while all(any(each.account == account for each in queue) for account in present):
        if len(running) == places:
            queue.done(running.pop(0))
        found = queue.next()
        assert found is not None
        queue.take(found)
        queue.charge(found, costs[found.id])
        running.append(found)
        got[found.account.name] += costs[found.id] / found.account.weight
    spread = max(got.values(), default=0) - min((got[account.name] for account in present), default=0)
    assert spread <= 2 * 40


def test_a_flood_does_not_hold_up_another_account() -> None:
    bench = Bench(slots=2)
    for number in range(20):
        bench.submit(number, [number + 1] * 5, max_tokens=8, account=A)
    bench.step()
    bench.submit(99, [99] * 5, max_tokens=8, account=B)
    bench.until(lambda: bench.answers[99].last is not None)
    assert sum(answer.last is not None for answer in bench.answers.values()) <= 5
    bench.run()
    assert all(answer.last is not None for answer in bench.answers.values())


def test_an_account_has_no_more_slots_than_it_may() -> None:
    bench = Bench(slots=4)
    for number in range(6):
        bench.submit(number, [number + 1] * 5, max_tokens=5, account=Account("few", max_running=2))
    most = 0
    while bench.engine.busy:
        bench.step()
        most = max(most, len(bench.engine.scheduler.running))
    assert most == 2
