"""What steps take as a multiple of a plain one, and whether all who are in them can bear that."""

from __future__ import annotations

from llama_backend.engine.budget import PrefillBudget
from llama_backend.engine.sequence import Sequence
from llama_backend.engine.speculation.step_cost import StepCost

LEAST_GAIN = 1.05
"""How many times as many tokens a second a step with drafts must promise."""


class StepPrice:
    """Weighs drafts by what steps of their size were measured to take."""

    def __init__(self, budget: PrefillBudget) -> None:
        self._budget = budget
        self.cost = StepCost()

    def plain(self, decoding: int) -> float:
        """Seconds of a step without drafts."""
        return self.cost.seconds(decoding)

    def steps(self, decoding: int, drafted: int, more: float = 0.0) -> float:
        """What a step and `more` seconds take as a multiple of a plain step; infinity where that is too long."""
        seconds = self.cost.seconds(decoding + drafted) + more
        if seconds > self._budget.longest(beside=decoding > 1):
            return float("inf")
        return seconds / self.plain(decoding)

    def observe(self, tokens: int, seconds: float) -> None:
        """Takes in how long a step of `tokens` took."""
        self.cost.token_seconds = self._budget.token_seconds
        self.cost.observe(tokens, seconds)


def bear(sequences: list[Sequence], expected: list[float], steps: float) -> bool:
    """Whether nobody is harmed by a step as long as `steps` plain ones that brings each what is expected."""
    return all(
        sequence.drafting is None or sequence.drafting.bears(steps, tokens, sequence.n_completion)
        for sequence, tokens in zip(sequences, expected, strict=True)
    )
