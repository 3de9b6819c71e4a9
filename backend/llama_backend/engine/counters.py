"""What the engine counts of itself as it goes."""

from __future__ import annotations

from dataclasses import dataclass

from llama_backend.engine.sequence import Sequence
from llama_backend.wire.status import StepTimes


@dataclass(slots=True)
class Tally:
    """Counters since the start of an engine; times in seconds."""

    steps: int = 0
    total: float = 0.0
    schedule: float = 0.0
    draft: float = 0.0
    decode: float = 0.0
    sample: float = 0.0
    prompt_tokens: int = 0
    """Tokens of the prompts that have a first token of their answer."""
    cached_tokens: int = 0
    """Those of them that were not computed."""
    generated_tokens: int = 0

    @property
    def times(self) -> StepTimes:
        deliver = max(self.total - self.schedule - self.draft - self.decode - self.sample, 0.0)
        return StepTimes(
            steps=self.steps,
            total=self.total,
            schedule=self.schedule,
            draft=self.draft,
            decode=self.decode,
            sample=self.sample,
            deliver=deliver,
        )

    def prompt(self, sequence: Sequence) -> None:
        """Counts the prompt of a sequence, once all of it is computed."""
        self.prompt_tokens += sequence.n_prompt
        self.cached_tokens += sequence.cached
