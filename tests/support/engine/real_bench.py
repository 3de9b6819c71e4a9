"""An engine over a real model, and what it answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from llama_backend.engine.engine import LLMEngine
from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.llama.model import Model
from llama_backend.engine.llama.runner import ModelRunner
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.prompt.builder import PromptBuilder
from llama_backend.engine.sequence import EngineRequest
from llama_backend.wire.api import ChatMessage, SamplingParams, Usage

COUNT = "Count from 1 to 100, with a comma between the numbers."
SERIES = [", ".join(str(number) for number in range(start, start + 12)) + "," for start in (1, 20, 40, 60)]
"""Beginnings that go on in one way only: a small model's other answers change with the last bit of a logit."""


@dataclass
class RealBench:
    """An engine over the demo model, and what it answered."""

    engine: LLMEngine
    runner: ModelRunner
    prompts: PromptBuilder
    cache: KVCache
    texts: dict[int, str] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    usages: dict[int, Usage] = field(default_factory=dict)
    accepted: int = 0
    """Drafted tokens that were right, in answers that have ended."""
    outputs: int = 0

    def submit(self, number: int, prompt: list[ChatMessage] | str, **sampling: Any) -> None:
        """A conversation to answer or a text to continue, greedily where nothing else is said."""
        params = SamplingParams(**{"temperature": 0.0, "max_tokens": 24} | sampling)
        self.texts[number] = ""
        tokens = self.prompts.text(prompt) if isinstance(prompt, str) else self.prompts.chat(prompt)
        self.engine.submit(EngineRequest(number, tokens, params, is_chat=not isinstance(prompt, str)))

    def ask(self, number: int, question: str, **sampling: Any) -> None:
        self.submit(number, [ChatMessage("user", question)], **sampling)

    def step(self) -> None:
        for output in self.engine.step().outputs:
            self.outputs += 1
            self.texts[output.id] += output.text
            if output.finish_reason is not None:
                assert output.usage is not None
                self.reasons[output.id] = output.finish_reason
                self.usages[output.id] = output.usage
                self.accepted += output.timings.draft_n_accepted if output.timings else 0

    def run(self) -> None:
        for _ in range(5000):
            if not self.engine.busy:
                self.check_cells()
                return
            self.step()
        raise AssertionError("still busy")

    def check_cells(self) -> None:
        """llama.cpp has the cells that the cache believes in."""
        for slot in self.cache.slots:
            assert self.runner.length(slot.seq_id) == len(slot.tokens)

    def answer(self, question: str, **sampling: Any) -> str:
        number = len(self.texts) + 1000
        self.ask(number, question, **sampling)
        self.run()
        return self.texts[number]

    def cached(self, number: int) -> int:
        details = self.usages[number].prompt_tokens_details
        assert details is not None
        return details["cached_tokens"]


@contextmanager
def runner_of(model: Model, plan: KVPlan, most_drafted: int = 0) -> Iterator[ModelRunner]:
    runner = ModelRunner(model, plan, threads=2, most_drafted=most_drafted)
    yield runner
    runner.close()
