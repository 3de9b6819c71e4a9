"""Runner and engine on the demo model: real tokens, real KV cells."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from llama_backend.engine.batch import Batch, BatchItem
from llama_backend.engine.llama.model import Model
from llama_backend.engine.llama.runner import ModelRunner
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.prompt.detokenizer import Detokenizer
from llama_backend.engine.sampling.chain import chain_of
from llama_backend.engine.sampling.json_schema import grammar_of
from llama_backend.engine.sequence import EngineRequest, Sequence
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import ChatMessage, SamplingParams
from tests.support.engine.assembly import assemble_on, new_cache
from tests.support.engine.builders import prompts_of
from tests.support.engine.real_bench import COUNT, SERIES, RealBench, runner_of

MakeBench = Callable[..., RealBench]


@pytest.fixture
def make_bench(model: Model) -> Iterator[MakeBench]:
    with ExitStack() as stack:

        def make(slots: int = 4, context: int = 512, cells: int | None = None, unified: bool = True) -> RealBench:
            plan = KVPlan(slots, context, cells or (context if unified else slots * context), unified)
            runner = stack.enter_context(runner_of(model, plan))
            prompts = prompts_of(model.vocab, model.template)
            engine, cache = assemble_on(runner, plan, model.vocab, prompts.remember)
            return RealBench(engine, runner, prompts, cache)

        yield make


@pytest.fixture
def bench(make_bench: MakeBench) -> RealBench:
    return make_bench()


def sequence_in_slot(runner: ModelRunner, model: Model, tokens: list[int]) -> Sequence:
    """A sequence without an engine, in the first slot."""
    sequence = Sequence(EngineRequest(1, tokens), Detokenizer(model.vocab.piece))
    sequence.slot = new_cache(runner, 1, 256).acquire(tokens)
    return sequence


def test_the_most_likely_token_is_what_a_greedy_chain_of_llama_cpp_takes(model: Model) -> None:
    with runner_of(model, KVPlan(2, 256, 256, True)) as runner:
        tokens = model.vocab.encode("The capital of France is")
        sequence = sequence_in_slot(runner, model, tokens)
        rows = runner.decode(Batch([BatchItem(sequence, 0, len(tokens))], prefill=len(tokens)))
        assert rows == [len(tokens) - 1]
        fast = runner.new_sampler(chain_of(SamplingParams(temperature=0), model.vocab.size), [])
        biased = SamplingParams(temperature=0, logit_bias={"5": 0})
        slow = runner.new_sampler(chain_of(biased, model.vocab.size), [])
        token = runner.sample(fast, rows[0])
        assert model.vocab.piece(token) == b" Paris"
        assert runner.sample(slow, rows[0]) == token
        runner.free_sampler(fast)
        runner.free_sampler(slow)


def test_cells_can_be_removed_and_computed_again(model: Model) -> None:
    with runner_of(model, KVPlan(1, 256, 256, True)) as runner:
        tokens = model.vocab.encode("one two three four five six seven")
        sequence = sequence_in_slot(runner, model, tokens)
        found = []
        for start in (0, 3):
            (row,) = runner.decode(Batch([BatchItem(sequence, start, len(tokens) - start)]))
            _, likeliest = runner.logprobs(row, 0, model.vocab.size)
            found.append((likeliest[0][0], [value for _, value in sorted(likeliest)]))
            assert runner.remove(0, 3)
        assert np.allclose(found[0][1], found[1][1], atol=0.5)
        assert found[0][0] == found[1][0]


def test_an_answer(bench: RealBench) -> None:
    assert bench.answer(COUNT).startswith("1, 2, 3, 4")
    assert set(bench.reasons.values()) == {"length"}


@pytest.mark.parametrize("unified", [True, False])
def test_answers_beside_others_are_those_given_alone(make_bench: MakeBench, unified: bool) -> None:
    bench = make_bench(slots=4, context=512, unified=unified)
    numbers = range(len(SERIES))
    for number in numbers:
        bench.submit(number, SERIES[number])
        bench.run()
    alone = [bench.texts[number] for number in numbers]
    for number in numbers:
        bench.submit(number, SERIES[number])
        bench.step()
        bench.step()
    assert len(bench.engine.scheduler.running) == len(SERIES)
    bench.run()
    assert [bench.texts[number] for number in numbers] == alone


def test_where_each_sequence_has_its_own_cells_greedy_answers_do_not_depend_on_others(make_bench: MakeBench) -> None:
    bench = make_bench(slots=4, context=256, unified=False)
    questions = [f"Tell me a story about {topic}." for topic in ("the sea", "winter", "bread", "a train")]
    alone = [bench.answer(question) for question in questions]
    for slot in bench.cache.slots:
        bench.cache.evict(slot)
    for number, question in enumerate(questions):
        bench.ask(number, question)
    bench.run()
    assert [bench.texts[number] for number in range(4)] == alone


def test_a_pool_that_is_too_small_for_all_changes_no_answer(make_bench: MakeBench) -> None:
    bench = make_bench(slots=4, context=256, cells=256)
    alone = bench.answer(COUNT, max_tokens=75)
    for number in range(3):
        bench.ask(number, COUNT, max_tokens=75)
    bench.run()
    assert bench.engine.scheduler.preemptions > 0
    assert [bench.texts[number] for number in range(3)] == [alone] * 3
    assert [bench.reasons[number] for number in range(3)] == ["length"] * 3


def test_a_full_context_ends_the_answer_with_length(make_bench: MakeBench) -> None:
    bench = make_bench(slots=2, context=256)
    bench.submit(1, " sea" * 240, max_tokens=None, ignore_eos=True)
    bench.run()
    assert bench.reasons[1] == "length"
    assert bench.usages[1].total_tokens == 256


def test_the_next_turn_finds_the_cells_of_all_before_it(bench: RealBench) -> None:
    first = [ChatMessage("user", "Name a colour, please.")]
    bench.submit(1, first)
    bench.run()
    assert bench.cached(1) == 0
    before = bench.usages[1]
    bench.submit(2, [*first, ChatMessage("assistant", bench.texts[1]), ChatMessage("user", "Another.")])
    bench.run()
    computed = before.total_tokens - (bench.reasons[1] == "length")
    assert bench.cached(2) == computed


def test_another_conversation_leaves_the_cells_of_the_first_alone(bench: RealBench) -> None:
    first = [ChatMessage("user", "Tell me about rivers, and mountains, and the sea, and what lives there.")]
    bench.submit(1, first, max_tokens=60)
    bench.run()
    bench.ask(2, "Hello")
    bench.run()
    bench.submit(3, [*first, ChatMessage("assistant", bench.texts[1]), ChatMessage("user", "More.")])
    bench.run()
    assert bench.cached(3) >= bench.usages[1].total_tokens - 1


def test_a_seed_makes_an_answer_again(bench: RealBench) -> None:
    wild = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 12}
    first, second, other = (bench.answer("Tell me a story.", seed=seed, **wild) for seed in (7, 7, 8))
    assert first == second
    assert first != other


def test_logit_bias_forces_a_token_and_forbids_one(bench: RealBench, model: Model) -> None:
    (token,) = model.vocab.encode(" yes")
    forced = bench.answer("Is it?", logit_bias={str(token): 100}, max_tokens=4)
    assert forced == " yes" * 4
    (paris,) = model.vocab.encode(" Paris")
    assert " Paris" not in bench.answer("What is the capital of France?", logit_bias={str(paris): -100})


def test_ignore_eos_goes_on_to_the_limit(bench: RealBench) -> None:
    bench.ask(1, "What is the capital of France?", ignore_eos=True, max_tokens=40)
    bench.run()
    assert bench.reasons[1] == "length"
    assert bench.usages[1].completion_tokens == 40


def test_a_stop_string(bench: RealBench) -> None:
    text = bench.answer(COUNT, stop="5")
    assert text
    assert "5" not in text
    assert bench.answer(COUNT).startswith(text)


def test_penalties_change_an_answer(bench: RealBench, model: Model) -> None:
    one, other = (model.vocab.encode(word)[0] for word in (" yes", " no"))
    forced = {"logit_bias": {str(one): 100.0, str(other): 100.0}, "max_tokens": 30}
    plain = bench.answer("Hi", **forced)
    varied = bench.answer("Hi", **forced, frequency_penalty=2.0)
    assert min(plain.count("yes"), plain.count("no")) < 10 <= min(varied.count("yes"), varied.count("no"))


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1e-45},
        {"temperature": 1e-38},
        {"temperature": 100.0},
        {"temperature": 1.0, "repeat_penalty": 1e-45},
        {"temperature": 1.0, "repeat_penalty": 10.0},
        {"temperature": 1.0, "top_p": 0.0},
        {"temperature": 1.0, "top_k": 1_000_000},
        {"temperature": 1.0, "min_p": 1.0},
        {"temperature": 1.0, "logit_bias": {str(token): -100.0 for token in range(49152)}},
        {"temperature": 0.0, "logit_bias": {str(token): -100.0 for token in range(49152)}},
        {"mirostat": 1, "mirostat_tau": 0.0},
        {"mirostat": 1, "mirostat_tau": 100.0, "mirostat_eta": 1.0},
        {"mirostat": 1, "logit_bias": {str(token): -100.0 for token in range(49152)}},
        {"mirostat": 2, "logit_bias": {str(token): -100.0 for token in range(49152)}},
        {"adaptive_target": 0.0, "adaptive_decay": 0.0, "top_k": 1},
        {"adaptive_target": 0.5, "logit_bias": {str(token): -100.0 for token in range(49152)}},
        {"typical_p": 1e-9},
        {"typical_p": 0.5, "logit_bias": {str(token): -100.0 for token in range(49152)}},
        {"top_n_sigma": 1e-9},
        {"top_n_sigma": 1.0, "logit_bias": {str(token): -100.0 for token in range(49152)}},
        {"xtc_probability": 1.0, "xtc_threshold": 0.0},
        {"dynatemp_range": 100.0, "dynatemp_exponent": 0.0},
        {"dry_multiplier": 100.0, "dry_base": 100.0, "dry_allowed_length": 0, "dry_penalty_last_n": 65536},
        {"dry_multiplier": 1.0, "dry_sequence_breakers": []},
        {"dry_multiplier": 1.0, "dry_sequence_breakers": ["é" * 40, "a\u0000b"]},
        {"min_keep": 1_000_000, "top_p": 0.1, "min_p": 0.9, "typical_p": 0.1, "xtc_probability": 1.0},
        {"temperature": 1.0, "repeat_last_n": 65536, "repeat_penalty": 1.1},
    ],
)
def test_extreme_parameters_end_no_engine(bench: RealBench, sampling: dict[str, Any]) -> None:
    bench.ask(1, "Hi", **sampling, max_tokens=3)
    bench.run()
    assert bench.reasons[1] in ("stop", "length")


LOOPING = "a b c d e a b c d e a b c d e a b c d e a b c d"


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [({}, True), ({"dry_multiplier": 5.0}, False), ({"repeat_penalty": 2.0, "temperature": 0.01}, False)],
)
def test_the_prompt_counts_for_repetition(bench: RealBench, sampling: dict[str, Any], expected: bool) -> None:
    bench.submit(1, LOOPING, **sampling, max_tokens=1)
    bench.run()
    assert (bench.texts[1] == " e") is expected


@pytest.mark.parametrize(
    "sampling",
    [
        {"mirostat": 1},
        {"mirostat": 2, "mirostat_tau": 3.0},
        {"adaptive_target": 0.3},
        {"typical_p": 0.5},
        {"top_n_sigma": 1.0},
        {"xtc_probability": 0.9, "xtc_threshold": 0.05},
        {"dynatemp_range": 0.5},
        {"dry_multiplier": 0.8},
    ],
)
def test_a_seed_makes_the_answer_of_each_sampler_again(bench: RealBench, sampling: dict[str, Any]) -> None:
    params = {"temperature": 1.0, "seed": 11} | sampling
    first, second = (bench.answer("Tell me a story.", **params) for _ in range(2))
    assert first == second


def test_log_probabilities_are_those_of_the_model(bench: RealBench, model: Model) -> None:
    tokens = model.vocab.encode("The capital of France is")
    bench.engine.submit(EngineRequest(1, tokens, SamplingParams(temperature=0, max_tokens=4), top_logprobs=5))
    entries = []
    while bench.engine.busy:
        entries += [entry for output in bench.engine.step().outputs for entry in output.logprobs or []]
    assert len(entries) == 4
    assert entries[0].token == b" Paris"
    for entry in entries:
        assert entry.top[0] == (entry.token, entry.logprob)
        values = [value for _, value in entry.top]
        assert len(values) == 5
        assert values == sorted(values, reverse=True)
        assert 0 < sum(np.exp(values)) <= 1


def test_several_answers_share_their_prompt_and_differ_by_their_seeds(bench: RealBench) -> None:
    for number in range(3):
        bench.ask(number, "Tell me a story.", temperature=1.5, seed=number + 1)
    bench.run()
    assert len(set(bench.texts.values())) == 3
    prompt = bench.usages[0].prompt_tokens
    assert [bench.cached(number) for number in range(3)] == [0, prompt - 1, prompt - 1]
    alone = bench.answer("Tell me a story.", temperature=1.5, seed=2)
    assert alone[:10] == bench.texts[1][:10]


@pytest.mark.parametrize("temperature", [0.0, 0.8, 2.0])
def test_an_answer_follows_its_grammar(bench: RealBench, temperature: float) -> None:
    grammar = 'root ::= ("red" | "green" | "blue") ", " [0-9]{3} "."'
    for seed in range(4):
        text = bench.answer("Tell me of the sea.", grammar=grammar, temperature=temperature, seed=seed)
        assert re.fullmatch(r"(red|green|blue), [0-9]{3}\.", text)
    assert set(bench.reasons.values()) == {"stop"}


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}, "age": {"type": "integer"}},
    "required": ["city", "big"],
}


@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5, "top_k": 0}, {"mirostat": 2, "temperature": 1.0}])
def test_an_answer_satisfies_its_schema(bench: RealBench, sampling: dict[str, Any]) -> None:
    limits = {"grammar": grammar_of(SCHEMA), "max_tokens": 100}
    found = json.loads(bench.answer("Describe Paris in JSON.", **limits, **sampling))
    assert isinstance(found["city"], str)
    assert isinstance(found["big"], bool)


def test_a_grammar_beside_others_changes_no_answer_but_its_own(bench: RealBench) -> None:
    bench.submit(9, SERIES[0])
    bench.run()
    alone = bench.texts[9]
    for number in range(3):
        bench.submit(number, SERIES[0], grammar="root ::= [a-z]{3}" if number == 1 else None)
    bench.run()
    assert bench.texts[0] == bench.texts[2] == alone
    assert re.fullmatch("[a-z]{3}", bench.texts[1])


def test_a_grammar_that_is_none_is_refused_and_leaves_nothing(bench: RealBench) -> None:
    with pytest.raises(InvalidRequest, match="grammar"):
        bench.ask(1, "Hi", grammar="root ::= (")
    assert not bench.engine.busy


def test_a_dead_end_ends_one_answer_with_an_error(bench: RealBench, model: Model) -> None:
    bias = {str(token): -100.0 for token in range(model.vocab.size) if b"b" in model.vocab.piece(token)}
    bench.ask(1, "Hi", grammar='root ::= "a" "b"', logit_bias=bias)
    bench.ask(2, COUNT)
    bench.run()
    assert (bench.reasons[1], bench.reasons[2]) == ("error", "length")


def test_the_end_is_allowed_where_the_grammar_ends_whatever_was_suppressed(bench: RealBench) -> None:
    assert bench.answer("Hi", grammar='root ::= "abc"', ignore_eos=True) == "abc"


def test_cancelling_in_the_middle_keeps_what_came(bench: RealBench) -> None:
    whole = bench.answer(COUNT)
    bench.ask(1, COUNT)
    for _ in range(8):
        bench.step()
    bench.engine.cancel(1)
    bench.step()
    assert bench.reasons[1] == "cancelled"
    assert bench.texts[1]
    assert whole.startswith(bench.texts[1])
    assert not bench.engine.busy


def test_text_comes_piece_by_piece(bench: RealBench) -> None:
    bench.ask(1, COUNT)
    bench.run()
    assert bench.outputs >= 20
