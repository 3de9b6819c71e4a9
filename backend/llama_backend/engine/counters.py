"""Counters of an engine, and stopwatches for the parts of its steps."""

from __future__ import annotations

from time import perf_counter

from llama_backend.engine.sequence import Sequence
from llama_backend.wire.status import StepTimes


class Stopwatch:
    """Adds up the seconds of its `with` blocks. It is reused, since there may be a block for each token."""

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
        """Choosing what a step computes, including the work of a draft model."""
        self.decode = Stopwatch()
        self.sample = Stopwatch()
        self.prompt_tokens = 0
        """Tokens of the prompts whose answers have begun."""
        self.cached_tokens = 0
        """Those of them that did not have to be computed."""
        self.generated_tokens = 0

    def count_prompt(self, sequence: Sequence) -> None:
        """Counts the prompt of a sequence that has been computed."""
        self.prompt_tokens += sequence.n_prompt
        self.cached_tokens += sequence.cached

    def times(self, draft: float) -> StepTimes:
        """The time of all steps by what it was spent on; a draft model took `draft` seconds of `schedule`."""
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
