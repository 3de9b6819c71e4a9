"""How likely drafted tokens are to be accepted, by what happened so far."""

from __future__ import annotations

from bisect import bisect_right

_RUNS = (0, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""The run lengths at which the next class begins."""
_CLASS = tuple(bisect_right(_RUNS, run) - 1 for run in range(_RUNS[-1] + 1))
_PRIOR_TRIES = 8.0
"""Tries that Laplace's rule of succession, (run + 1) / (run + 2), counts for."""
_PRIOR_MISSES = 2.0
"""Misses that a sequence must have been expected to have, so that its own count as much as others'."""
_MEMORY = 256.0
"""Tries after which the older ones count half."""


class Acceptance:
    """Shares of the tokens that came as they were guessed, by how long a run of such tokens was before them."""

    def __init__(self) -> None:
        self._tries = [_PRIOR_TRIES] * len(_RUNS)
        self._misses = [_PRIOR_TRIES / (run + 2) for run in _RUNS]

    def learn(self, run: int, hit: bool) -> None:
        """Notes whether the token after a run came as it was guessed."""
        index = _class_of(run)
        self._tries[index] += 1
        self._misses[index] += not hit
        if self._tries[index] > _MEMORY:
            self._tries[index] /= 2
            self._misses[index] /= 2

    def miss(self, run: int) -> float:
        """The probability that the token after a run is another than was guessed."""
        index = _class_of(run)
        return self._misses[index] / self._tries[index]


class OwnAcceptance:
    """That of one sequence: others' misses, times how many it has for each that others would have had."""

    def __init__(self, others: Acceptance) -> None:
        self._others = others
        self._misses = self._expected = _PRIOR_MISSES

    def learn(self, run: int, hit: bool) -> None:
        """See Acceptance."""
        self._expected += self._others.miss(run)
        self._misses += not hit
        self._others.learn(run, hit)

    def chance(self, run: int) -> float:
        """The probability that the token after a run is what was guessed."""
        return max(1 - self._others.miss(run) * self._misses / self._expected, 0.0)


def _class_of(run: int) -> int:
    return _CLASS[min(run, len(_CLASS) - 1)]
