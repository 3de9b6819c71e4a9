"""The number of threads on a simulated machine whose processors others use at times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_backend.engine.placement.thread_tuner import State, ThreadTuner
from tests.support.engine.busy_machine import Machine, tuner_on


def run(machine: Machine, tuner: ThreadTuner, seconds: float, tokens: int = 1) -> list[int]:
    """The threads of each step for some seconds."""
    used, end = [], machine.now + seconds
    while machine.now < end:
        used.append(tuner.threads)
        tuner.observe(tokens, *machine.step(tuner.threads, tokens))
    return used


@pytest.mark.parametrize("processors", [1, 2, 8, 64])
@pytest.mark.parametrize("tokens", [1, 16, 200])
def test_nothing_is_tried_where_nothing_is_wrong(processors: int, tokens: int) -> None:
    machine = Machine(processors)
    tuner = tuner_on(machine)
    assert set(run(machine, tuner, 500 * machine.step(processors, tokens)[0], tokens)) == {processors}
    assert tuner.trials == 0


@pytest.mark.parametrize("knows_idle", [True, False])
@pytest.mark.parametrize(("processors", "busy"), [(2, 1), (4, 1), (4, 2), (16, 1), (16, 10)])
def test_busy_processors_are_left_to_others_and_taken_again(processors: int, busy: int, knows_idle: bool) -> None:
    machine = Machine(processors, lambda now: busy if 1 <= now < 11 else 0, knows_idle)
    tuner = tuner_on(machine)
    assert set(run(machine, tuner, 1)) == {processors}
    found = run(machine, tuner, 10)
    assert found[50] == pytest.approx(processors - busy, abs=busy // 4)
    run(machine, tuner, 5 if knows_idle else 60)
    assert tuner.threads == processors


def test_a_machine_that_is_busy_from_the_beginning() -> None:
    machine = Machine(2, lambda now: 1)
    tuner = tuner_on(machine)
    found = run(machine, tuner, 20)
    assert found[18:] == [1] * len(found[18:])
    assert (tuner.changes, tuner.trials) == (1, 1)


def test_the_states_on_the_way_to_fewer_threads() -> None:
    machine = Machine(4, lambda now: 2 if now > 0.5 else 0)
    tuner, states = tuner_on(machine), [State.WATCHING]
    while machine.now < 3:
        tuner.observe(1, *machine.step(tuner.threads, 1))
        if tuner.state is not states[-1]:
            states.append(tuner.state)
    assert states[:4] == [State.WATCHING, State.SUSPECTING, State.TRYING, State.FOLLOWING]
    assert states[-1] is State.WATCHING
    assert tuner.threads == 2


def test_a_short_disturbance_is_suspected_and_nothing_is_tried() -> None:
    tuner, states = ThreadTuner(2), []
    for seconds in [0.014] * 6 + [0.042] * 2 + [0.014] * 6:
        tuner.observe(1, seconds, 1.95 * seconds)
        states.append(tuner.state)
    assert states == [State.WATCHING] * 7 + [State.SUSPECTING] * 6 + [State.WATCHING]
    assert tuner.trials == 0


def test_without_knowing_what_is_idle_trials_become_rare() -> None:
    machine = Machine(2, lambda now: 1, knows_idle=False)
    tuner = tuner_on(machine)
    found = run(machine, tuner, 300)
    assert tuner.trials <= 12
    assert found.count(2) < 0.01 * len(found)


def test_one_step_is_enough_to_end_a_trial_that_is_much_slower() -> None:
    now = 0.0
    tuner = ThreadTuner(2, clock=lambda: now)
    for _ in range(17):
        tuner.observe(1, 0.03 if tuner.threads == 2 else 0.012, 0.015)
    assert tuner.threads == 1
    now += 10
    for _ in range(6):
        tuner.observe(1, 0.012, 0.012)
    assert (tuner.state, tuner.threads) == (State.TRYING, 2)
    tuner.observe(1, 1.0, 0.5)
    assert (tuner.state, tuner.threads) == (State.WATCHING, 1)


def test_longer_conversations_are_no_reason_to_keep_trying() -> None:
    machine = Machine(2)
    tuner = tuner_on(machine)
    for _ in range(60):
        machine.work *= 1.04
        run(machine, tuner, 5)
    assert tuner.threads == 2
    assert tuner.changes == 0
    assert tuner.trials < 10


def test_steps_of_changing_width_are_compared_with_their_like() -> None:
    """As with speculation, where a step has one token or several."""
    machine = Machine(2, lambda now: 1)
    tuner = tuner_on(machine)
    for number in range(300):
        tokens = 1 + number * number % 3
        tuner.observe(tokens, *machine.step(tuner.threads, tokens))
    assert tuner.threads == 1
    assert tuner.changes == 1


def test_a_trial_ends_where_nothing_can_be_compared_any_more() -> None:
    machine = Machine(2, lambda now: 1)
    tuner = tuner_on(machine)
    while tuner.threads == 2:
        tuner.observe(1, *machine.step(tuner.threads, 1))
    for _ in range(12):
        assert tuner.observe(5, *machine.step(tuner.threads, 5)) == 1
    assert tuner.observe(5, *machine.step(tuner.threads, 5)) == 2
    assert tuner.changes == 0


def test_a_step_of_no_tokens_or_no_time_changes_nothing() -> None:
    tuner = ThreadTuner(4)
    for tokens, seconds in ((0, 1.0), (1, 0.0)) * 20:
        assert tuner.observe(tokens, seconds, 0.0) == 4
    assert tuner.trials == 0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    processors=st.integers(1, 8),
    spans=st.lists(st.tuples(st.floats(2, 12), st.integers(0, 8)), min_size=1, max_size=3),
    knows_idle=st.booleans(),
    tokens=st.sampled_from([1, 4, 16, 64]),
    jitter=st.floats(0, 0.15),
)
def test_what_others_do_costs_little_more_than_it_must(
    processors: int, spans: list[tuple[float, int]], knows_idle: bool, tokens: int, jitter: float
) -> None:
    """Against the number that it began with, and against the best at each moment: what it tries does not matter."""
    ends = [sum(length for length, _ in spans[: index + 1]) for index in range(len(spans))]
    levels = [min(busy, processors) for _, busy in spans]
    machine = Machine(processors, lambda now: next((b for e, b in zip(ends, levels, strict=True) if now < e), 0))
    machine.knows_idle, machine.jitter = knows_idle, jitter
    tuner = tuner_on(machine)
    total, fixed, best = 0.0, 0.0, 0.0
    while machine.now < ends[-1]:
        assert 1 <= tuner.threads <= processors
        fixed += machine.cost(processors, tokens) * (1 + jitter)
        best += machine.least(tokens) * (1 + jitter)
        seconds, processor_seconds = machine.step(tuner.threads, tokens)
        total += seconds
        tuner.observe(tokens, seconds, processor_seconds)
    trials = 12 * len(spans) * machine.cost(1, tokens)
    assert total < 1.05 * fixed + trials
    assert total < 2 * best + trials
