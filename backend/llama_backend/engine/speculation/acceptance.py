"""How likely guessed tokens are to be accepted, by what happened so far."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence as Tokens

from llama_backend.engine.moving_average import moving_average

_RUNS = (0, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""The run lengths at which the next class begins."""
_PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
"""The probabilities of a draft model's tokens at which the next class begins."""
_PRIOR_TRIES = 8.0
"""Tries that what is expected at first counts for."""
_PRIOR_MISSES = 2.0
"""Misses that a sequence must have been expected to have, before its own count as much as those of all."""
_MEMORY = 256.0
"""Tries after which the older ones count half."""
_FIRST_CHANCE = 0.95
"""How often a draft model is taken to be right, as long as it was not tried."""
_LEARN_WEIGHT = 0.1
"""How much each new token changes that."""
_RECOVER_WEIGHT = 0.02
"""How far it comes back with each new sequence: a model that is never asked could not prove better."""


class Acceptance:
    """Shares of the tokens that came as they were guessed, by a sign of how likely that is.

    `bounds` are where the classes of the sign begin, and `misses` the probabilities that a guess of each class is
    wrong, until more is known.
    """

    def __init__(self, bounds: Tokens[float], misses: Tokens[float]) -> None:
        self._bounds = bounds
        self._tries = [_PRIOR_TRIES] * len(bounds)
        self._misses = [_PRIOR_TRIES * miss for miss in misses]

    @classmethod
    def by_run(cls) -> Acceptance:
        """By how many tokens in a row came as they were guessed, or would have been: Laplace's rule of succession."""
        return cls(_RUNS, [1 / (run + 2) for run in _RUNS])

    @classmethod
    def by_probability(cls) -> Acceptance:
        """By the probability that a draft model gives its guess."""
        return cls(_PROBABILITIES, [1 - probability for probability in _PROBABILITIES])

    def learn(self, sign: float, hit: bool) -> None:
        """Notes whether a token came as it was guessed."""
        index = self._class_of(sign)
        self._tries[index] += 1
        self._misses[index] += not hit
        if self._tries[index] > _MEMORY:
            self._tries[index] /= 2
            self._misses[index] /= 2

    def miss(self, sign: float) -> float:
        """The probability that another token comes than was guessed."""
        index = self._class_of(sign)
        return self._misses[index] / self._tries[index]

    def _class_of(self, sign: float) -> int:
        return max(bisect_right(self._bounds, sign) - 1, 0)


class SequenceAcceptance:
    """The acceptance of one sequence: the misses of all, times how many it had for each that was expected."""

    def __init__(self, shared: Acceptance) -> None:
        """`shared` is what all sequences have learned."""
        self._shared = shared
        self._misses = self._expected = _PRIOR_MISSES

    def learn(self, sign: float, hit: bool) -> None:
        """Notes whether a token came as it was guessed, for this sequence and for all."""
        self._expected += self._shared.miss(sign)
        self._misses += not hit
        self._shared.learn(sign, hit)

    def chance(self, sign: float) -> float:
        """The probability that the token that was guessed comes."""
        return max(1 - self._shared.miss(sign) * self._misses / self._expected, 0.0)


class ModelAcceptance:
    """What all sequences have learned about the tokens of a draft model."""

    def __init__(self) -> None:
        self.by_probability = Acceptance.by_probability()
        self.usual_chance = _FIRST_CHANCE
        """The chance of a token before anything is known of it."""

    def start(self) -> float:
        """What a new sequence begins with as its usual chance."""
        self.usual_chance = moving_average(self.usual_chance, _FIRST_CHANCE, _RECOVER_WEIGHT)
        return self.usual_chance

    def learn(self, chance: float) -> None:
        """Takes in the chance that a token has."""
        self.usual_chance = learned(self.usual_chance, chance)


def learned(usual: float, chance: float) -> float:
    """The usual chance after one more token."""
    return moving_average(usual, chance, _LEARN_WEIGHT)
