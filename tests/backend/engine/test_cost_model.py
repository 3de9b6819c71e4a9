"""What steps and copies cost, by what was seen of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.engine.cost_model import CostModel


def seen(*steps: tuple[int, float], times: int = 60) -> CostModel:
    costs = CostModel()
    for _ in range(times):
        for tokens, seconds in steps:
            costs.observe_decode(tokens, seconds)
    return costs


def test_nothing_is_known_at_first() -> None:
    costs = CostModel()
    assert not costs.knows(1)
    assert costs.step_seconds(5) == 0


def test_sizes_that_were_seen_are_known_and_others_lie_between() -> None:
    costs = seen((1, 0.010), (4, 0.016), (8, 0.032))
    assert costs.knows(4)
    assert not costs.knows(5)
    assert [costs.step_seconds(n) for n in (1, 4, 8)] == pytest.approx([0.010, 0.016, 0.032], rel=0.02)
    assert costs.step_seconds(6) == pytest.approx(0.024, rel=0.02)


@pytest.mark.parametrize(("token_seconds", "expected"), [(0.003, 0.022), (None, 0.030)])
def test_beyond_the_largest_each_token_costs_what_one_of_a_prompt_does(
    token_seconds: float | None, expected: float
) -> None:
    costs = seen((1, 0.010))
    costs.prompt_token_seconds = token_seconds
    assert costs.step_seconds(5) == pytest.approx(expected)


def test_one_slow_step_changes_little() -> None:
    costs = seen((1, 0.010))
    costs.observe_decode(1, 0.050)
    assert costs.step_seconds(1) < 0.015


@pytest.mark.parametrize("seconds", [0.005, 0.040])
def test_it_follows_a_machine_that_has_changed(seconds: float) -> None:
    costs = seen((1, 0.010))
    for _ in range(40):
        costs.observe_decode(1, seconds)
    assert costs.step_seconds(1) == pytest.approx(seconds, rel=0.05)


def test_what_was_not_seen_for_long_has_to_be_seen_again_and_is_forgotten_in_the_end() -> None:
    costs = seen((1, 0.010), (4, 0.100))
    for _ in range(80):
        costs.observe_decode(1, 0.010)
    assert not costs.knows(4)
    assert costs.step_seconds(4) == pytest.approx(0.100, rel=0.05)
    for _ in range(1200):
        costs.observe_decode(1, 0.010)
    assert costs.step_seconds(4) == pytest.approx(0.010 + 3 * 0.005, rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 80), st.floats(1e-4, 1.0)), min_size=1), st.integers(1, 100))
def test_an_estimate_is_positive_and_within_what_was_seen(steps: list[tuple[int, float]], tokens: int) -> None:
    costs = CostModel()
    for size, seconds in steps:
        costs.observe_decode(size, seconds)
    assert costs.step_seconds(tokens) > 0
    if tokens <= max(size for size, _ in steps):
        assert costs.step_seconds(tokens) <= 80 * max(seconds for _, seconds in steps)


def test_what_single_tokens_beside_a_prompt_take_is_not_charged_to_the_prompt() -> None:
    costs = seen((4, 0.020))
    costs.observe_prefill(100, 4, 0.120)
    assert costs.prompt_token_seconds == pytest.approx(0.001, rel=0.02)


def test_a_copy_pays_where_computing_takes_longer() -> None:
    costs = CostModel()
    assert costs.copying_pays(saved=100, copied=100)
    for _ in range(30):
        costs.observe_copy(100, 0.2)
    assert not costs.copying_pays(saved=100, copied=100)
    costs.observe_prefill(100, 0, 0.4)
    assert costs.copying_pays(saved=100, copied=100)
    assert not costs.copying_pays(saved=100, copied=300)
