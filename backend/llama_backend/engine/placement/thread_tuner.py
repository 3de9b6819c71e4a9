"""Chooses the number of threads while the engine works, from the times of the steps themselves.

llama.cpp's threads wait for each other after every operation. Where another process keeps one of the processors
busy, a thread that has to share it holds up all others: on two processors of which one was busy, two threads ran at
32 tokens/s and one at 84. So when steps become slow, a few of them are run with another number, and the better one
stays. Idle processors lead back in the same way. Nothing is tried as long as nothing seems wrong.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

DOWN, UP = -1, 1

_SLOW = 1.3
"""A step that costs as many times the least that was seen for its number of tokens is slow."""
_LOST, _LOST_EACH = 0.2, 0.04
"""Processors' worth of time that threads did not get, in all and for each, from which on others must be using them."""
_FREE = 0.7
"""Idle processors from which on one more thread is tried."""
_BETTER = {DOWN: 0.93, UP: 0.99}
"""What a step may cost, in parts of what it did, for another number of threads to stay."""
_HOPELESS = 2.0
"""One step that costs as many times what steps did ends a trial."""
_WATCHED, _TRIED = 6, 4
"""Steps that are looked back on, and those of a trial."""
_PATIENCE = 12
_LONG_SECONDS = 0.4
"""So many seconds of steps are enough as well, if there are two."""
_LOOK_SECONDS = 1.0
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
"""Seconds until the next trial in a direction that brought nothing; they double each time."""
_GUESSES = 3
_MANY_TOKENS = 33
"""From here on a step is bound by computing, and a token costs about the same whatever their number."""


@dataclass
class Window:
    """The last steps of about the same number of tokens, with the same number of threads."""

    kind: int
    most: int
    costs: deque[float] = field(default_factory=deque)
    """Seconds a token."""
    lost: deque[float] = field(default_factory=deque)
    """Processors' worth of time that the threads did not get."""
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float, lost: float) -> None:
        if len(self.costs) == self.most:
            self.costs.popleft()
            self.lost.popleft()
        self.costs.append(seconds / tokens)
        self.lost.append(lost)
        self.seconds += seconds

    @property
    def is_full(self) -> bool:
        return len(self.costs) == self.most or (len(self.costs) > 1 and self.seconds > _LONG_SECONDS)

    @property
    def cost(self) -> float:
        """The mean of at least two, without the longest, which may be anything."""
        return (sum(self.costs) - max(self.costs)) / (len(self.costs) - 1)

    @property
    def mean_lost(self) -> float:
        return sum(self.lost) / len(self.lost)


@dataclass
class Trial:
    """Some steps with another number of threads than `before`, when they cost `cost`."""

    direction: int
    before: int
    cost: float
    window: Window
    is_first: bool = True
    """The first step makes or ends threads, and does not count."""
    others: int = 0
    """Steps of another number of tokens meanwhile."""


class ThreadTuner:
    """The number of threads for the next step, from 1 to `most`; starts with `most`.

    `idle` tells how many processors were idle since it was asked last, or None where that is not known.
    """

    def __init__(
        self, most: int, idle: Callable[[], float | None] = lambda: None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.most = most
        self.threads = most
        self.changes = 0
        """How often another number stayed."""
        self.trials = 0
        self._idle = idle
        self._clock = clock
        self._windows: dict[int, Window] = {}
        self._trial: Trial | None = None
        self._least: dict[int, float] = {}
        self._pause = {DOWN: _FIRST_PAUSE, UP: _FIRST_PAUSE}
        self._next = {DOWN: 0.0, UP: 0.0}
        self._rejected = {DOWN: 0, UP: 0}
        """Trials in a row that brought nothing."""
        self._next_look = 0.0
        self._going, self._stride = 0, 1
        self._suspected = False
        """Whether steps seemed slow, so that those from then on tell what is to be compared."""

    def observe(self, tokens: int, seconds: float, processor_seconds: float) -> int:
        """Takes in a step, with the processor time that all threads had meanwhile; returns the next one's threads."""
        if self.most > 1 and tokens and seconds > 0:
            lost = self.threads - processor_seconds / seconds
            kind = _kind(tokens)
            if self._trial is not None:
                self._judge(self._trial, kind, tokens, seconds, lost)
            else:
                self._watch(kind, tokens, seconds, lost)
        return self.threads

    def _watch(self, kind: int, tokens: int, seconds: float, lost: float) -> None:
        window = self._windows.setdefault(kind, Window(kind, _WATCHED))
        window.add(tokens, seconds, lost)
        if not window.is_full:
            return
        more = self._more(window)
        self._least[kind] = min(window.cost, self._least.get(kind, window.cost))
        if more < 0 and not self._going and not self._suspected:
            self._suspected, self._windows = True, {}
        elif more:
            self._try(window, more)
        else:
            self._suspected = False

    def _more(self, window: Window) -> int:
        """How many threads more to try, or fewer where negative; mostly 0."""
        now = self._clock()
        if self._going and 1 < self.threads < self.most:
            return self._going * self._stride
        self._going, self._stride = 0, 1
        if self.threads > 1 and now >= self._next[DOWN] and (crowded := self._crowded(window)):
            return -self._halved(crowded, DOWN)
        if self.threads < self.most and now >= max(self._next_look, self._next[UP]):
            self._next_look = now + _LOOK_SECONDS
            return self._halved(self._free(), UP)
        return 0

    def _halved(self, count: int, direction: int) -> int:
        """A guess that did not hold is halved the next times, and then tried again, since things change."""
        return max(1, count >> self._rejected[direction] % _GUESSES) if count else 0

    def _crowded(self, window: Window) -> int:
        """Threads that seem to be too many: of two that share a processor, each loses half of it."""
        usual = _LOST_EACH * self.threads
        if window.mean_lost > _LOST + usual:
            return max(1, round(2 * (window.mean_lost - usual)))
        return int(window.cost > _SLOW * self._least.get(window.kind, window.cost))

    def _free(self) -> int:
        """Threads that processors seem to be idle for; one where that is not known."""
        idle = self._idle()
        return 1 if idle is None else int(idle + 1 - _FREE)

    def _try(self, window: Window, more: int) -> None:
        direction = UP if more > 0 else DOWN
        self._trial = Trial(direction, self.threads, window.cost, Window(window.kind, _TRIED))
        self.threads = min(self.most, max(1, self.threads + more))
        self.trials += 1
        self._suspected = False

    def _judge(self, trial: Trial, kind: int, tokens: int, seconds: float, lost: float) -> None:
        if kind != trial.window.kind:
            self._pass_over(trial)
            return
        is_first, trial.is_first = trial.is_first, False
        if seconds / tokens > _HOPELESS * trial.cost:
            self._reject(trial)
        elif not is_first or seconds > _LONG_SECONDS:
            trial.window.add(tokens, seconds, lost)
            if trial.window.is_full and trial.window.cost < _BETTER[trial.direction] * trial.cost:
                self._accept(trial)
            elif trial.window.is_full:
                self._reject(trial)

    def _pass_over(self, trial: Trial) -> None:
        """Steps that cannot be compared do not count; too many of them end a trial."""
        trial.others += 1
        if trial.others > _PATIENCE:
            self._next[trial.direction] = self._clock() + self._pause[trial.direction]
            self._end_trial(trial.before)

    def _accept(self, trial: Trial) -> None:
        """Goes on in the same direction, with larger strides, as long as that brings something."""
        self.changes += 1
        self._going = trial.direction
        self._stride *= 2
        self._rejected = {DOWN: 0, UP: 0}
        self._pause = {DOWN: _FIRST_PAUSE, UP: _FIRST_PAUSE}
        self._next = dict.fromkeys(self._next, self._clock() + _FIRST_PAUSE)
        self._next[trial.direction] = 0.0
        self._idle()
        self._end_trial(self.threads)

    def _reject(self, trial: Trial) -> None:
        """Takes steps for as long as they are now, until that changes; and does not ask again soon."""
        self._next[trial.direction] = self._clock() + self._pause[trial.direction]
        self._pause[trial.direction] = min(2 * self._pause[trial.direction], _LONGEST_PAUSE)
        self._rejected[trial.direction] += 1
        self._least[trial.window.kind] = trial.cost
        self._going, self._stride = 0, 1
        self._end_trial(trial.before)

    def _end_trial(self, threads: int) -> None:
        self.threads = threads
        self._trial = None
        self._windows = {}


def _kind(tokens: int) -> int:
    """Steps of one kind can be compared by what a token costs."""
    return min(tokens, _MANY_TOKENS)
