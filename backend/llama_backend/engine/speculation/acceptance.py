"""The probability that guessed tokens are accepted, learned from earlier guesses."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence as Tokens

from llama_backend.engine.moving_average import moving_average

_RUNS = (0, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""The lengths of runs of right guesses at which each class begins."""
_PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
"""The probabilities that a draft model gives its tokens, at which each class begins."""
_PRIOR_TRIES = 8.0
"""How many tries the initial estimate counts as."""
_PRIOR_MISSES = 2.0
"""How many expected misses the estimate from all sequences counts as, beside those of the sequence itself."""
_MEMORY = 256.0
"""After so many tries, the older ones count half."""
_FIRST_CHANCE = 0.95
"""How often a draft model is assumed to be right before it was tried."""
_LEARN_WEIGHT = 0.1
"""The weight of each new token in `usual_chance`."""
_RECOVER_WEIGHT = 0.02
"""How far `usual_chance` returns to the first value with each new sequence, so that a draft model is tried again."""


class Acceptance:
    """How often guesses are wrong, in classes by a sign of how likely that is.

    `bounds` are the values of the sign at which the classes begin, and `misses` the initial probabilities that a guess
    of each class is wrong.
    """

    def __init__(self, bounds: Tokens[float], misses: Tokens[float]) -> None:
        self._bounds = bounds
        self._tries = [_PRIOR_TRIES] * len(bounds)
        self._misses = [_PRIOR_TRIES * miss for miss in misses]

    @classmethod
    def by_run(cls) -> Acceptance:
        """Classes by how many lookups in a row were (or would have been) right; at first by Laplace's rule."""
        return cls(_RUNS, [1 / (run + 2) for run in _RUNS])

    @classmethod
    def by_probability(cls) -> Acceptance:
        """Classes by the probability that a draft model gives its guess."""
        return cls(_PROBABILITIES, [1 - probability for probability in _PROBABILITIES])

    def learn(self, sign: float, hit: bool) -> None:
        """Notes whether a guess was right."""
        index = self._class_of(sign)
        self._tries[index] += 1
        self._misses[index] += not hit
        if self._tries[index] > _MEMORY:
            self._tries[index] /= 2
            self._misses[index] /= 2

    def miss(self, sign: float) -> float:
        """The probability that a guess is wrong."""
        index = self._class_of(sign)
        return self._misses[index] / self._tries[index]

    def _class_of(self, sign: float) -> int:
        return max(bisect_right(self._bounds, sign) - 1, 0)


class SequenceAcceptance:
    """The acceptance of one sequence: that of all, corrected by its own ratio of misses to expected misses."""

    def __init__(self, shared: Acceptance) -> None:
        """`shared` is the acceptance of all sequences."""
        self._shared = shared
        self._misses = self._expected = _PRIOR_MISSES

    def learn(self, sign: float, hit: bool) -> None:
        """Notes whether a guess was right, for this sequence and for all."""
        self._expected += self._shared.miss(sign)
        self._misses += not hit
        self._shared.learn(sign, hit)

    def chance(self, sign: float) -> float:
        """The probability that a guess is right."""
        return max(1 - self._shared.miss(sign) * self._misses / self._expected, 0.0)


class ModelAcceptance:
    """The acceptance of a draft model's tokens, learned from all sequences."""

    def __init__(self) -> None:
        self.by_probability = Acceptance.by_probability()
        self.usual_chance = _FIRST_CHANCE
        """The average chance of a token, for tokens that are not guessed yet."""

    def start(self) -> float:
        """The usual chance with which a new sequence begins."""
        self.usual_chance = moving_average(self.usual_chance, _FIRST_CHANCE, _RECOVER_WEIGHT)
        return self.usual_chance

    def learn(self, chance: float) -> None:
        """Learns from the chance of one token."""
        self.usual_chance = learned(self.usual_chance, chance)


def learned(usual: float, chance: float) -> float:
    """The usual chance after one more token."""
    return moving_average(usual, chance, _LEARN_WEIGHT)
