"""How likely a guess is, by what happened so far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.engine.speculation.acceptance import Acceptance, ModelAcceptance, SequenceAcceptance

tries = st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=400)


def learned(others: Acceptance, run: int, hits: int, misses: int) -> SequenceAcceptance:
    own = SequenceAcceptance(others)
    for hit in [True] * hits + [False] * misses:
        own.learn(run, hit)
    return own


def test_a_longer_run_is_trusted_more_from_the_beginning() -> None:
    own = SequenceAcceptance(Acceptance.by_run())
    chances = [own.chance(run) for run in (1, 3, 4, 8, 16, 48)]
    assert chances == sorted(chances)
    assert chances[0] < 0.6 < 0.95 < chances[-1]


@pytest.mark.parametrize(("hits", "misses"), [(400, 0), (0, 400), (300, 100)])
def test_what_is_seen_often_is_believed(hits: int, misses: int) -> None:
    others = Acceptance.by_run()
    for index in range(hits + misses):
        others.learn(10, index % (hits + misses) < hits if not (hits and misses) else index % 4 != 0)
    assert 1 - others.miss(10) == pytest.approx(hits / (hits + misses), abs=0.04)
    assert others.miss(3) == Acceptance.by_run().miss(3), "other runs are not touched"


def test_a_sequence_that_is_right_more_often_than_others_is_trusted_more() -> None:
    others = Acceptance.by_run()
    good, bad = learned(others, 5, 30, 0), learned(others, 5, 0, 30)
    assert good.chance(20) > SequenceAcceptance(others).chance(20) > bad.chance(20)


def test_a_new_sequence_starts_from_what_others_have_shown() -> None:
    others = Acceptance.by_run()
    learned(others, 5, 0, 100)
    assert SequenceAcceptance(others).chance(5) < 0.2


@given(tries)
def test_a_chance_is_a_probability(tries: list[tuple[int, bool]]) -> None:
    own = SequenceAcceptance(Acceptance.by_run())
    for run, hit in tries:
        own.learn(run, hit)
        assert 0 <= own.chance(run) <= 1


def test_a_draft_model_that_disappoints_is_given_another_chance_later() -> None:
    model = ModelAcceptance()
    first = model.start()
    for _ in range(50):
        model.learn(0.1)
    assert model.start() < 0.2 < 0.9 < first
    assert [model.start() for _ in range(100)][-1] > 0.8
