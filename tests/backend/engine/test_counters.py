"""What the engine counts, and where its time goes."""

from __future__ import annotations

import pytest

from llama_backend.engine import counters
from llama_backend.engine.counters import EngineCounters, Stopwatch
from tests.support.engine.fakes import new_sequence


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The moments that are read from the clock, one after another."""
    moments: list[float] = []
    monkeypatch.setattr(counters, "perf_counter", lambda: moments.pop(0))
    return moments


def test_a_stopwatch_adds_up_its_blocks_even_where_one_fails(clock: list[float]) -> None:
    clock += [10.0, 11.0, 20.0, 23.0]
    watch = Stopwatch()
    with watch:
        pass
    with pytest.raises(KeyError), watch:
        raise KeyError
    assert (watch.seconds, watch.last, watch.end) == (4.0, 3.0, 23.0)


def test_the_times_of_a_step_add_up_and_a_draft_model_s_is_its_own(clock: list[float]) -> None:
    clock += [0.0, 1.0, 3.0, 4.0, 9.0, 10.0, 10.5, 12.0]
    found = EngineCounters()
    with found.step:
        with found.schedule:
            pass
        with found.decode:
            pass
        with found.sample:
            pass
    times = found.times(draft=0.5)
    assert (times.schedule, times.draft, times.decode, times.sample) == (1.5, 0.5, 5.0, 0.5)
    assert times.deliver == 12.0 - 2.0 - 5.0 - 0.5
    assert times.total == times.schedule + times.draft + times.decode + times.sample + times.deliver


def test_the_cached_tokens_of_a_prompt_are_counted_apart() -> None:
    found, sequence = EngineCounters(), new_sequence(1, [1, 2, 3, 4, 5])
    sequence.cached = 3
    found.count_prompt(sequence)
    assert (found.prompt_tokens, found.cached_tokens) == (5, 3)
