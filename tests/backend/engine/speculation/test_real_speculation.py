"""Drafts on the demo model: the same tokens, from fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llama_backend.engine.llama.draft_runner import DraftRunner, check_draft_model
from llama_backend.engine.llama.model import Model
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.sequence import EngineRequest
from llama_backend.engine.speculation.draft_model import DraftModel
from llama_backend.engine.speculation.speculator import MOST_DRAFTED
from llama_backend.errors import ModelUnreadable
from llama_backend.wire.api import SamplingParams
from tests.support.engine.assembly import Options, assemble_on
from tests.support.engine.builders import prompts_of
from tests.support.engine.fakes import FixedCosts
from tests.support.engine.real_bench import SERIES, RealBench, runner_of

MakeBench = Callable[..., RealBench]
LINES = "host = example.org\nport = 8080\nuser = admin\n" * 2 + "host = example"


@pytest.fixture
def make_bench(model: Model) -> Iterator[MakeBench]:
    """An engine with or without speculation, over one pool or not, where drafts seem to cost nothing."""
    with ExitStack() as stack:

        def make(
            speculates: bool, unified: bool, draft_model: DraftModel | None = None, step: float = 0.001
        ) -> RealBench:
            plan = KVPlan(4, 512, 512 if unified else 2048, unified)
            runner = stack.enter_context(runner_of(model, plan, MOST_DRAFTED))
            prompts = prompts_of(model.vocab, model.template)
            options = Options(speculates, draft_model, FixedCosts(0.01, step))
            engine, cache = assemble_on(runner, plan, model.vocab, prompts.remember, options)
            return RealBench(engine, runner, prompts, cache)

        yield make


def steps_of(bench: RealBench, prompts: list[str], **sampling: Any) -> int:
    """Runs all prompts at once; how many steps they took."""
    for number, prompt in enumerate(prompts):
        bench.submit(number, prompt, **{"max_tokens": 48, "ignore_eos": True} | sampling)
    bench.run()
    return bench.engine.stats().times.steps


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"temperature": 0.5, "seed": 3},
        {"temperature": 0.5, "seed": 4, "mirostat": 2, "mirostat_tau": 1.0},
        {"repeat_penalty": 1.01, "repeat_last_n": 32},
        {"grammar": r'root ::= ([a-z]+ (" = " | ".") [a-z0-9]+ "\n"?){4,}'},
    ],
    ids=["greedy", "seed", "mirostat", "penalties", "grammar"],
)
def test_with_drafts_the_answer_is_the_same_and_takes_fewer_steps(
    make_bench: MakeBench, unified: bool, sampling: dict[str, Any]
) -> None:
    prompt = LINES if "grammar" not in sampling else LINES.removesuffix("host = example")
    plain, speculative = make_bench(False, unified), make_bench(True, unified)
    before, after = (steps_of(bench, [prompt], **sampling) for bench in (plain, speculative))
    assert speculative.texts == plain.texts
    assert speculative.usages[0].completion_tokens == plain.usages[0].completion_tokens
    assert after < before


def test_beside_others_the_answers_are_the_same_too(make_bench: MakeBench) -> None:
    """With cells of its own: in one pool others change an answer's last bits anyway, with or without drafts."""
    plain, speculative = make_bench(False, False), make_bench(True, False)
    for bench in (plain, speculative):
        steps_of(bench, [LINES, *SERIES[:2]])
    assert speculative.texts == plain.texts
    assert speculative.accepted > 0


def test_log_probabilities_come_with_each_token(make_bench: MakeBench) -> None:
    found = []
    for speculate in (False, True):
        bench = make_bench(speculate, True)
        sampling = SamplingParams(temperature=0, max_tokens=30)
        bench.engine.submit(EngineRequest(1, bench.prompts.text(LINES), sampling, top_logprobs=2))
        outputs = []
        while bench.engine.busy:
            outputs += bench.engine.step().outputs
        found.append([entry for output in outputs for entry in output.logprobs or []])
    plain, speculative = found
    assert [entry.token for entry in speculative] == [entry.token for entry in plain]
    for one, other in zip(plain, speculative, strict=True):
        assert other.logprob == pytest.approx(one.logprob, abs=0.1)


def test_a_model_guesses_for_itself(model: Model, make_bench: MakeBench) -> None:
    with ExitStack() as stack:
        runner = DraftRunner(model, KVPlan(4, 512, 512, True), lambda: 2, model.vocab.size)
        stack.callback(runner.close)
        plain, speculative = make_bench(False, True), make_bench(True, True, DraftModel(runner, 4), step=0.3)
        before, after = (steps_of(bench, [SERIES[0]], max_tokens=24) for bench in (plain, speculative))
    assert speculative.texts == plain.texts
    assert after < 0.8 * before


def test_a_model_with_another_vocabulary_cannot_guess(model: Model) -> None:
    check_draft_model(model, model, "same")
    other = SimpleNamespace(
        supports_partial_removal=True, states_are_complete=True, vocab=replace(model.vocab, size=32_000)
    )
    with pytest.raises(ModelUnreadable, match=r"small.gguf: .* 32000 tokens, but the model's has 49152"):
        check_draft_model(model, cast(Model, other), "small.gguf")
    other.vocab = replace(model.vocab, piece=lambda token: b"x" if token == 70 else model.vocab.piece(token))
    with pytest.raises(ModelUnreadable, match=r"token 70 of its vocabulary is b'x'"):
        check_draft_model(model, cast(Model, other), "small.gguf")
    other.vocab = replace(model.vocab, control=model.vocab.control | {"<|im_start|>": 5})
    with pytest.raises(ModelUnreadable, match=r"the control token <\|im_start\|> has another id in it"):
        check_draft_model(model, cast(Model, other), "small.gguf")
    other.supports_partial_removal = False
    for large, small, whose in ((model, other, "its"), (other, model, "the model's")):
        with pytest.raises(ModelUnreadable, match=f"cannot be removed from {whose} KV cache"):
            check_draft_model(cast(Model, large), cast(Model, small), "small.gguf")
