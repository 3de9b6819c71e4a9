"""The time of steps with drafts as a multiple of a plain step, and whether sequences may be delayed by it."""

from __future__ import annotations

from llama_backend.engine.budget import ALONE_SECONDS, BESIDE_SECONDS
from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.sequence import Sequence

LEAST_GAIN = 1.05
"""By which factor a step with drafts must be expected to bring more tokens per second."""


class RelativeCost:
    """Compares steps with drafts to those without."""

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs

    def is_known(self, decoding: int) -> bool:
        """Whether the time of a plain step is known, so that others can be compared with it."""
        return self._costs.knows(decoding)

    def plain_seconds(self, decoding: int) -> float:
        """Seconds of a step without drafts."""
        return self._costs.step_seconds(decoding)

    def steps(self, decoding: int, drafted: int, more: float = 0.0) -> float:
        """The expected time of a step plus `more` seconds, as a multiple of a plain step; infinity where too long."""
        seconds = self._costs.step_seconds(decoding + drafted) + more
        if seconds > (BESIDE_SECONDS if decoding > 1 else ALONE_SECONDS):
            return float("inf")
        return seconds / self.plain_seconds(decoding)

    def taken(self, decoding: int, drafted: int) -> float:
        """The time of a step that was run, as a multiple of a plain step."""
        return self._costs.step_seconds(decoding + drafted) / self.plain_seconds(decoding)


def may_delay_all(sequences: list[Sequence], expected: list[float], steps: float) -> bool:
    """Whether a step that takes as long as `steps` plain ones is within the allowed delay of all sequences."""
    return all(
        sequence.draft_history is None or sequence.draft_history.may_delay(steps, tokens, sequence.n_completion)
        for sequence, tokens in zip(sequences, expected, strict=True)
    )
