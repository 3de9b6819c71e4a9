"""Drafts change when tokens come and never which; and they are tried only where that pays."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_backend.engine.sampling.chain import SamplerChain
from llama_backend.wire.ipc import SequenceOutput
from tests.support.engine.fakes import (
    EOG,
    Bench,
    FakeModel,
    FakeRunner,
    copying_token,
    lone_answer,
    next_token,
)
from tests.support.engine.simulation import simulate

FREE, CPU = 0.01, 0.45
"""What a further token of a step costs: as on a GPU, and as on a small CPU."""
TEXT = [1 + 7 * n % 997 for n in range(50)]


def repeating(tokens: Tokens[int]) -> int:
    """A fake model that goes on with what came after its last token before, and else counts."""
    places = [index for index, token in enumerate(tokens[:-1]) if token == tokens[-1]]
    return tokens[places[0] + 1] if places else 1 + (tokens[-1] + 1) % 998


def drafted(bench: Bench) -> list[int]:
    """How many tokens were drafted in each step."""
    return [batch.drafted for batch in bench.runner.batches]


def answered(
    part: float | None, prompt: list[int], model: FakeModel = repeating, max_tokens: int | None = None
) -> Bench:
    bench = Bench(model=model, token_part=part)
    bench.submit(1, prompt, max_tokens=max_tokens)
    bench.run()
    return bench


def test_a_repeated_text_comes_in_few_steps() -> None:
    bench = answered(FREE, [*TEXT, *TEXT[:5]], max_tokens=50)
    assert bench.answers[1].text == lone_answer([*TEXT, *TEXT[:5]], 50, 1000, repeating)[0]
    assert len(bench.runner.batches) < 12


def test_without_speculation_each_token_takes_a_step() -> None:
    bench = answered(None, [*TEXT, *TEXT[:5]], max_tokens=50)
    assert len(bench.runner.batches) == 50
    assert sum(drafted(bench)) == 0


def test_what_does_not_repeat_is_not_drafted_for() -> None:
    bench = answered(CPU, [5] * 5, model=next_token, max_tokens=300)
    assert sum(drafted(bench)) == 0


def test_where_further_tokens_cost_as_much_nothing_is_drafted() -> None:
    assert sum(drafted(answered(1.0, [*TEXT, *TEXT[:5]], max_tokens=50))) == 0


def test_dearer_tokens_are_drafted_more_carefully() -> None:
    cheap, dear = (answered(part, [*TEXT, *TEXT[:5]], max_tokens=50) for part in (FREE, CPU))
    assert max(drafted(cheap)) >= max(drafted(dear)) > 0
    assert next(filter(None, drafted(cheap))) > next(filter(None, drafted(dear)))


def test_usage_counts_tokens_once_and_timings_tell_of_drafts() -> None:
    bench = answered(FREE, [*TEXT, *TEXT[:5]], model=copying_token, max_tokens=50)
    last = bench.answers[1].last
    assert last is not None
    assert last.usage is not None
    assert last.timings is not None
    count = len(bench.answers[1].text.split())
    assert (last.usage.completion_tokens, last.timings.predicted_n) == (count, count)
    assert last.timings.draft_n == sum(drafted(bench))
    assert count - len(bench.runner.batches) <= last.timings.draft_n_accepted <= last.timings.draft_n


def test_a_draft_never_goes_beyond_the_limit_or_the_context() -> None:
    for limit in range(1, 40):
        bench = answered(FREE, [*TEXT, *TEXT[:5]], max_tokens=limit)
        assert len(bench.answers[1].text.split()) == limit
    bench = Bench(cells=100, model=repeating, token_part=FREE)
    bench.submit(1, [*TEXT, *TEXT[:5]])
    bench.run()
    assert bench.runner.no_room == 0
    assert len(bench.answers[1].text.split()) == 45


def test_a_stop_string_within_a_draft_ends_the_answer_there() -> None:
    bench = Bench(model=repeating, token_part=FREE)
    bench.submit(1, [*TEXT, *TEXT[:5]], stop=f"{TEXT[30]} {TEXT[31]}")
    bench.run()
    assert bench.answers[1].reason == "stop"
    assert bench.answers[1].text.split() == [str(token) for token in TEXT[5:30]]
    (slot,) = [slot for slot in bench.cache.slots if slot.tokens]
    assert slot.tokens == [*TEXT, *TEXT[:31]], "nothing is left of what came after it"
    assert bench.memory.cells[slot.seq_id] == slot.tokens


def test_the_end_of_an_answer_is_found_within_drafts_and_not_drafted() -> None:
    prompt = [*TEXT[:30], EOG, *TEXT[30:], *TEXT[:5]]
    bench = answered(FREE, prompt)
    assert bench.answers[1].text.split() == [str(token) for token in TEXT[5:30]]
    assert bench.answers[1].reason == "stop"
    assert all(EOG not in item.draft for batch in bench.runner.batches for item in batch.items)


@pytest.mark.parametrize("unified", [True, False])
def test_no_draft_beside_a_prompt(unified: bool) -> None:
    bench = Bench(model=repeating, token_part=FREE, n_batch=20, unified=unified)
    bench.submit(1, [*TEXT, *TEXT[:5]], max_tokens=150)
    for _ in range(8):
        bench.step()
    bench.submit(2, [500 + n for n in range(100)], max_tokens=2)
    bench.run()
    assert sum(drafted(bench)) > 0
    assert all(batch.drafted == 0 for batch in bench.runner.batches if batch.prefill or batch.delays_prompt)


def test_drafts_take_free_cells_only() -> None:
    bench = Bench(slots=2, cells=200, context=150, model=repeating, token_part=FREE)
    bench.submit(1, [900 + n % 90 for n in range(70)], max_tokens=1)
    bench.run()
    kept = len(bench.cache.slots[0].tokens)
    bench.submit(2, [*TEXT, *TEXT[:5]], max_tokens=60)
    bench.run()
    assert sum(drafted(bench)) > 0
    assert bench.runner.no_room == 0
    assert len(bench.cache.slots[0].tokens) == kept, "cells of another conversation were not given away"


def test_who_gets_no_draft_is_not_held_up_by_those_of_others() -> None:
    bench = Bench(model=repeating, token_part=CPU)
    bench.submit(1, [*TEXT, *TEXT[:5]], max_tokens=50)
    bench.submit(2, [2, 400], max_tokens=200)
    bench.run()
    beside = [batch.drafted for batch in bench.runner.batches if len(batch.items) == 2]
    assert len(beside) > 40
    assert CPU * sum(beside) <= 0.02 * len(beside)


def test_those_who_all_repeat_get_drafts_together() -> None:
    bench = Bench(model=repeating, token_part=0.2)
    prompts = [[start + n for n in range(15)] + [start + n for n in range(5)] for start in (100, 300, 500)]
    for number, prompt in enumerate(prompts):
        bench.submit(number, prompt, max_tokens=50)
    bench.run()
    assert max(sum(bool(item.draft) for item in batch.items) for batch in bench.runner.batches) == 3
    assert len(bench.runner.batches) < 30


def test_a_batch_with_drafts_that_finds_no_room_is_run_without() -> None:
    bench, plain = (Bench(cells=200, capacity=70, model=repeating, token_part=part) for part in (FREE, None))
    for each in (bench, plain):
        each.submit(1, [*TEXT, *TEXT[:5]])
        each.run()
    assert bench.answers[1].text == plain.answers[1].text
    assert bench.runner.no_room > plain.runner.no_room == 1
    assert bench.engine.scheduler.preemptions == 0


def test_cancelling_between_drafts_leaves_what_was_accepted() -> None:
    bench = Bench(model=repeating, token_part=FREE)
    bench.submit(1, [*TEXT, *TEXT[:5]])
    while not sum(drafted(bench)):
        bench.step()
    bench.engine.cancel(1)
    bench.step()
    words = bench.answers[1].text.split()
    assert bench.answers[1].reason == "cancelled"
    assert words == [str(token) for token in TEXT[5 : 5 + len(words)]]
    assert bench.memory.cells[0] == [*TEXT, *TEXT[: 5 + len(words)]][:-1]


class CountingSampler:
    """A sampler with a memory: what it takes depends on how often it was asked, as with a seed or mirostat."""

    def __init__(self) -> None:
        self.random = Random(1)

    def take(self, token: int) -> int:
        return token if self.random.random() < 0.9 else 1 + token * 31 % 998


class StatefulRunner(FakeRunner):
    def new_sampler(self, chain: SamplerChain, prompt: list[int], grammar: str | None = None) -> CountingSampler:  # type: ignore[override]
        return CountingSampler()

    def free_sampler(self, sampler: object) -> None:
        pass

    def sample(self, sampler: CountingSampler, row: int) -> int:  # type: ignore[override]
        return sampler.take(self._rows[row])


def stateful(part: float | None) -> Bench:
    bench = Bench(model=repeating, token_part=part, runner_type=StatefulRunner)
    bench.submit(1, TEXT * 3, max_tokens=300)
    bench.run()
    return bench


def test_samplers_move_on_by_the_tokens_that_are_taken_and_no_others() -> None:
    plain, speculative = stateful(None), stateful(FREE)
    assert speculative.answers[1].text == plain.answers[1].text
    last = speculative.answers[1].last
    assert last is not None
    assert last.timings is not None
    assert 0 < last.timings.draft_n_accepted < last.timings.draft_n


def test_each_token_has_the_log_probabilities_of_its_own_row() -> None:
    bench = Bench(model=repeating, token_part=FREE)
    bench.submit(1, [*TEXT, *TEXT[:5]], max_tokens=30, top_logprobs=1)
    outputs: list[SequenceOutput] = []
    while bench.engine.busy:
        outputs += bench.engine.step().outputs
    entries = [entry for output in outputs for entry in output.logprobs or []]
    assert [entry.token for entry in entries] == [f"{token} ".encode() for token in TEXT[5:35]]
    assert sum(drafted(bench)) > 0


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("seed", range(25))
def test_with_drafts_everybody_gets_the_answer_that_they_get_alone(seed: int, unified: bool) -> None:
    bench = simulate(Random(seed), unified, failing=seed % 5 == 0, model=copying_token, token_part=FREE)
    for batch in bench.runner.batches:
        assert not (batch.drafted and batch.prefill)


@given(st.lists(st.integers(1, 4), min_size=3, max_size=60), st.integers(1, 80), st.sampled_from([FREE, 0.2, CPU]))
@settings(max_examples=150)
def test_no_prompt_gets_another_answer_with_drafts(prompt: list[int], max_tokens: int, part: float) -> None:
    bench = answered(part, prompt, model=copying_token, max_tokens=max_tokens)
    text, reason = lone_answer(prompt, max_tokens, 1000, copying_token)
    assert (bench.answers[1].text, bench.answers[1].reason) == (text, reason)
    seconds = sum(1 + part * (batch.size - 1) for batch in bench.runner.batches[1:])
    assert seconds <= 1.02 * len(text.split()) + 3, "trying costs at most the stake and two in a hundred"
