"""How many prompt tokens go into a step."""

from __future__ import annotations

import pytest

from llama_backend.engine.budget import PrefillBudget
from llama_backend.engine.cost_model import CostModel


class Machine:
    """A budget, and the cost model that it decides by."""

    def __init__(self, n_batch: int, beside: float = 0.5, alone: float = 1.0) -> None:
        self.costs = CostModel()
        self.budget = PrefillBudget(n_batch, self.costs, beside, alone)

    def run(self, steps: int, decoding: int, token: float, decode_step: float) -> float:
        """Steps in which a prompt token takes `token` seconds; returns the seconds of the last one."""
        seconds = 0.0
        for _ in range(steps):
            prefill = self.budget.tokens(decoding)
            seconds = prefill * token + (decode_step if decoding else 0.0)
            self.costs.observe_prefill(prefill, decoding, seconds)
        return seconds


def test_the_first_step_is_careful() -> None:
    assert Machine(n_batch=512).budget.tokens(decoding=0) == 64
    assert Machine(n_batch=32).budget.tokens(decoding=0) == 32


@pytest.mark.parametrize("token", [0.001, 0.005, 0.02])
def test_a_step_beside_streams_comes_close_to_its_target(token: float) -> None:
    machine = Machine(n_batch=512, beside=0.4)
    for _ in range(30):
        machine.costs.observe_decode(4, 0.05)
    assert 0.2 < machine.run(30, decoding=4, token=token, decode_step=0.05) < 0.46


def test_without_streams_a_step_may_take_longer() -> None:
    machine = Machine(n_batch=512, alone=1.0)
    assert 0.75 < machine.run(30, decoding=0, token=0.004, decode_step=0.0) < 1.1


def test_it_follows_a_machine_that_gets_slower() -> None:
    machine = Machine(n_batch=512, alone=1.0)
    machine.run(20, decoding=0, token=0.002, decode_step=0.0)
    assert 0.6 < machine.run(10, decoding=0, token=0.01, decode_step=0.0) < 1.1


@pytest.mark.parametrize(
    ("affordable", "tokens"), [(20, 20), (47, 47), (48, 64), (63, 64), (64, 64), (110, 64), (122, 128), (250, 256)]
)
def test_chunks_are_whole_tiles_where_that_is_near(affordable: int, tokens: int) -> None:
    machine = Machine(n_batch=512, beside=1.0)
    machine.costs.observe_prefill(64, 0, 64 / (affordable + 0.5))
    assert machine.budget.tokens(4) == tokens


def test_a_fast_machine_is_held_by_the_batch_only() -> None:
    machine = Machine(n_batch=512)
    machine.run(5, decoding=8, token=1e-6, decode_step=0.001)
    assert machine.budget.tokens(decoding=8) == 448


def test_a_slow_machine_still_gets_on() -> None:
    machine = Machine(n_batch=512)
    machine.run(20, decoding=4, token=1.0, decode_step=2.0)
    assert machine.budget.tokens(decoding=4) == 16


def test_a_batch_full_of_streams_has_no_room_for_prompts() -> None:
    machine = Machine(n_batch=16)
    machine.run(5, decoding=0, token=0.01, decode_step=0.0)
    assert machine.budget.tokens(decoding=16) == 0
    assert machine.budget.tokens(decoding=10) == 6


def test_a_few_tokens_teach_nothing() -> None:
    machine = Machine(n_batch=512)
    machine.costs.observe_prefill(1, 0, 0.5)
    assert machine.budget.tokens(decoding=0) == 64


def test_the_more_sequences_generate_the_less_is_left_of_a_step_for_prompts() -> None:
    machine = Machine(n_batch=512)
    for _ in range(30):
        machine.costs.observe_decode(1, 0.05)
        machine.costs.observe_decode(8, 0.35)
    machine.costs.observe_prefill(100, 0, 0.1)
    assert machine.budget.tokens(decoding=1) == pytest.approx(450, abs=32)
    assert machine.budget.tokens(decoding=8) == pytest.approx(150, abs=32)
