"""What the engine counts of itself as it goes, and where its time goes."""

from __future__ import annotations

from time import perf_counter

from llama_backend.engine.sequence import Sequence
from llama_backend.wire.status import StepTimes


class Stopwatch:
    """Adds up the seconds of its `with` blocks, one after another. It is made once, since a block may be a token's."""

    __slots__ = ("begin", "end", "seconds")

    def __init__(self) -> None:
        self.begin = 0.0
        self.end = 0.0
        self.seconds = 0.0

    def __enter__(self) -> None:
        self.begin = perf_counter()

    def __exit__(self, *error: object) -> None:
        self.end = perf_counter()
        self.seconds += self.end - self.begin

    @property
    def last(self) -> float:
        """Seconds of the last block."""
        return self.end - self.begin


class EngineCounters:
    """Counters since the start of an engine."""

    def __init__(self) -> None:
        self.steps = 0
        self.step = Stopwatch()
        """All of a step."""
        self.schedule = Stopwatch()
        """What a step computes is chosen; a draft model works meanwhile, too."""
        self.decode = Stopwatch()
        self.sample = Stopwatch()
        self.prompt_tokens = 0
        """Tokens of the prompts whose answers have begun."""
        self.cached_tokens = 0
        """Those of them that were not computed."""
        self.generated_tokens = 0

    def count_prompt(self, sequence: Sequence) -> None:
        """Counts the prompt of a sequence, once all of it is computed."""
        self.prompt_tokens += sequence.n_prompt
        self.cached_tokens += sequence.cached

    def times(self, draft: float) -> StepTimes:
        """Where the time went, of which a draft model took `draft` seconds."""
        total, schedule = self.step.seconds, self.schedule.seconds - draft
        deliver = total - self.schedule.seconds - self.decode.seconds - self.sample.seconds
        return StepTimes(
            steps=self.steps,
            total=total,
            schedule=schedule,
            draft=draft,
            decode=self.decode.seconds,
            sample=self.sample.seconds,
            deliver=max(deliver, 0.0),
        )
