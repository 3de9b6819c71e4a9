"""How likely drafted tokens are to be accepted, by what happened so far."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence as Tokens

_RUNS = (0, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""The run lengths at which the next class begins."""
_PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
"""The probabilities of a draft model's tokens at which the next class begins."""
_PRIOR_TRIES = 8.0
"""Tries that what is expected at first counts for."""
_PRIOR_MISSES = 2.0
"""Misses that a sequence must have been expected to have, so that its own count as much as others'."""
_MEMORY = 256.0
"""Tries after which the older ones count half."""
_OPTIMISM = 0.95
"""How often a draft model is right, as long as it was not tried."""
_SMOOTH = 0.1
"""How fast that follows what is found."""
_FORGIVE = 0.02
"""How fast it comes back, with each new sequence: one that is never asked could not prove better."""


class Acceptance:
    """Shares of the tokens that came as they were guessed, by something that tells how likely that is.

    `bounds` are where its classes begin, and `misses` the probabilities that a guess of each is wrong, until more
    is known.
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
        """By what a draft model thinks of its guess."""
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


class OwnAcceptance:
    """That of one sequence: others' misses, times how many it has for each that others would have had."""

    def __init__(self, others: Acceptance) -> None:
        self._others = others
        self._misses = self._expected = _PRIOR_MISSES

    def learn(self, sign: float, hit: bool) -> None:
        """See Acceptance."""
        self._expected += self._others.miss(sign)
        self._misses += not hit
        self._others.learn(sign, hit)

    def chance(self, sign: float) -> float:
        """The probability that the token that was guessed comes."""
        return max(1 - self._others.miss(sign) * self._misses / self._expected, 0.0)


class DraftTrust:
    """What all sequences have found of a draft model's tokens."""

    def __init__(self) -> None:
        self.acceptance = Acceptance.by_probability()
        self.usual = _OPTIMISM
        """The chance of a token before anything is known of it."""

    def start(self) -> float:
        """What a new sequence begins with as `usual`."""
        self.usual = follow(self.usual, _OPTIMISM, _FORGIVE)
        return self.usual

    def learn(self, chance: float) -> None:
        """Takes in the chance that a token has."""
        self.usual = follow(self.usual, chance)


def follow(old: float, new: float, part: float = _SMOOTH) -> float:
    """A mean in which older values count less and less."""
    return old + part * (new - old)
