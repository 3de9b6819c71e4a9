"""How long a step takes by its number of tokens, as far as steps have shown."""

from __future__ import annotations

from bisect import bisect_left, insort

_DOWN, _UP = 0.3, 0.1
"""How fast an estimate follows: others on the machine can only make a step longer, and mostly soon stop."""
_MEMORY = 512
"""Steps after which a size that did not occur again is as unknown as one that never did."""
_FRESH = 64
"""Steps after which a size has to be seen again before others are compared with it."""
_GUESS = 0.5
"""What a further token is taken to cost, as a part of the average one, where nothing is known."""


class StepCost:
    """Seconds of steps that decode a token or a few of each sequence.

    Twice the tokens may cost nothing (a GPU that waits for its memory) or twice as much (a CPU), and not evenly so.
    So there is an estimate for each size; what lies between two is interpolated.
    """

    def __init__(self) -> None:
        self.token_seconds: float | None = None
        """What a token costs beyond the largest size that is known; who knows sets it."""
        self._seconds: dict[int, float] = {}
        self._seen: dict[int, int] = {}
        self._sizes: list[int] = []
        self._steps = 0

    def knows(self, tokens: int) -> bool:
        """Whether a step of that size was seen, and not too long ago."""
        return self._steps - self._seen.get(tokens, -_FRESH) < _FRESH

    def observe(self, tokens: int, seconds: float) -> None:
        """Takes in a step. A size that is new starts from what it was expected to take."""
        self._steps += 1
        if self._steps % _MEMORY == 0:
            self._forget()
        old = self.seconds(tokens) or seconds
        if tokens not in self._seconds:
            insort(self._sizes, tokens)
        self._seconds[tokens] = old + (_DOWN if seconds < old else _UP) * (seconds - old)
        self._seen[tokens] = self._steps

    def seconds(self, tokens: int) -> float:
        """What a step of `tokens` takes; 0 where nothing is known yet."""
        if tokens in self._seconds:
            return self._seconds[tokens]
        at = bisect_left(self._sizes, tokens)
        if at == len(self._sizes):
            return self._beyond(tokens)
        above = self._sizes[at]
        below, least = (self._sizes[at - 1], self._seconds[self._sizes[at - 1]]) if at else (0, 0.0)
        return least + (tokens - below) / (above - below) * (self._seconds[above] - least)

    def _beyond(self, tokens: int) -> float:
        if not self._sizes:
            return 0.0
        largest = self._sizes[-1]
        each = self.token_seconds or _GUESS * self._seconds[largest] / largest
        return self._seconds[largest] + (tokens - largest) * each

    def _forget(self) -> None:
        self._sizes = [size for size in self._sizes if self._steps - self._seen[size] < _MEMORY]
        self._seconds = {size: self._seconds[size] for size in self._sizes}
