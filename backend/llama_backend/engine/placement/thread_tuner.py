"""Chooses the number of threads while the engine works, from the times of the steps themselves.

llama.cpp's threads wait for each other after every operation. Where another process keeps one of the processors
busy, the thread that shares it delays all others: on two processors of which one was busy, two threads ran at
32 tokens/s and one thread at 84. So when steps become slow, a few of them are run with fewer threads, and the better
number is kept. When processors are idle again, more threads are tried in the same way. As long as nothing seems wrong,
nothing is tried.

The figures beside the constants are simulated (`python -m tests.bench.thread_tuner`): by how much a minute of steps
takes longer than with the best number at each moment, on 2, 4 and 8 processors that others take and leave. With the
constants as they are that is 3.4 %; with a thread for each processor all the time it is 44 %.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from time import monotonic

DOWN, UP = -1, 1

_WATCHED_STEPS, _TRIED_STEPS = 6, 4
"""Steps in a window, and in a trial. With 12 and 8 it takes 4.7 and 3.9 %, since a change is noticed
later; with 3 and 2 one disturbed step decides on a real machine, for 2.9 and 3.2 %."""
_LONG_SECONDS = 0.4
"""Two steps are enough if they take longer than this together: a step of a large model may take a second."""
_MANY_TOKENS = 33
"""From so many tokens on, a step is bound by computing, and the time for a token no longer depends on their number."""
_SLOW = 1.3
"""A step is slow if it takes this many times the least that was seen for its number of tokens. With 1.1, steps that
vary by 30 % cause trials where nothing is wrong, and it takes 8.2 %."""
_LOST, _LOST_EACH = 0.2, 0.04
"""Processor time that threads did not get, in processors, in all and for each thread; more means that others use it.
Without the part for each thread it takes 7.9 %, with 0.1 for each 13 %, with 0.5 in all 4.9 %."""
_FREE = 0.7
"""Idle processors from which on one more thread is tried. All values from 0.3 to 0.95 are as good: a processor is
either busy or idle, except for the threads' waiting for each other."""
_LOOK_SECONDS = 1.0
"""How often idle processors are looked for. Every 4 s takes 8.9 %; every 0.25 s takes 3.1 %, and reads /proc/stat four
times as often."""
_BETTER = {DOWN: 0.93, UP: 0.99}
"""The most that a step may take, as a part of its time before, for another number of threads to be kept. With 0.8,
which one thread more or less cannot reach on many processors, it takes 7.5 %."""
_MUCH_SLOWER = 2.0
"""A trial ends with the first step that takes this many times the time before. With 10 it takes 4.1 %."""
_PATIENCE_STEPS = 12
"""Steps of another number of tokens after which a trial ends. Where that number changes from step to step, as with
speculation, it takes 9.9 %. With 3 it takes 22 %, and with 50 7.3 %, but then up to 50 steps run with a bad number."""
_FIRST_PAUSE, _LONGEST_PAUSE = 2.0, 60.0
"""Seconds until the next trial in a direction that was no better; they double each time. With 0.5 s at first there are
a third more trials, and it takes 4.5 %; with 8 s 10 %."""
_GUESSES = 3
"""A change of several threads that was no better is halved so many times, and then tried in full again. With 1 it takes
2.7 %, but real threads lose time for other reasons too, and then the full change would be wrong every time."""


class State(Enum):
    """What a tuner is doing, and what comes next when a window of steps is full.

    | state      | the steps                              | next                                                      |
    |------------|----------------------------------------|-----------------------------------------------------------|
    | WATCHING   | run with the number that is in use     | SUSPECTING where they are slow or threads lose time;      |
    |            |                                        | TRYING more threads where processors are idle             |
    | SUSPECTING | are measured once more                 | TRYING fewer threads where they are still slow;           |
    |            |                                        | WATCHING where it was a short disturbance                 |
    | TRYING     | run with another number of threads     | FOLLOWING where they cost less;                           |
    |            |                                        | WATCHING, with the number from before, where they do not  |
    | FOLLOWING  | run with the number that was better    | TRYING a number further on in the same direction, or      |
    |            |                                        | the same as WATCHING where there is none                  |
    """

    WATCHING = auto()
    SUSPECTING = auto()
    TRYING = auto()
    FOLLOWING = auto()


@dataclass
class Window:
    """The last steps of about the same number of tokens, with the same number of threads."""

    kind: int
    most: int
    costs: deque[float] = field(default_factory=deque)
    """Seconds a token."""
    lost: deque[float] = field(default_factory=deque)
    """Processor time that the threads did not get, in processors."""
    seconds: float = 0.0

    def add(self, tokens: int, seconds: float, lost: float) -> None:
        """Adds a step, and drops the oldest one if there are enough."""
        if len(self.costs) == self.most:
            self.costs.popleft()
            self.lost.popleft()
        self.costs.append(seconds / tokens)
        self.lost.append(lost)
        self.seconds += seconds

    @property
    def is_full(self) -> bool:
        """Whether there are enough steps to judge by."""
        return len(self.costs) == self.most or (len(self.costs) > 1 and self.seconds > _LONG_SECONDS)

    @property
    def cost(self) -> float:
        """The mean of the steps without the longest one, which may have been disturbed; there must be two or more."""
        return (sum(self.costs) - max(self.costs)) / (len(self.costs) - 1)

    @property
    def mean_lost(self) -> float:
        """The mean of `lost`."""
        return sum(self.lost) / len(self.lost)


@dataclass
class Trial:
    """Some steps with another number of threads; with `before` threads, steps cost `cost`."""

    direction: int
    before: int
    cost: float
    window: Window
    follows: bool
    """Whether the trial before it was better, in the same direction."""
    is_first: bool = True
    """Whether no step was run yet; the first one starts or ends threads, and does not count."""
    others: int = 0
    """Steps with another number of tokens since its begin."""


@dataclass
class Direction:
    """When fewer threads, or more threads, may be tried again."""

    next: float
    pause: float
    """Seconds until the next trial after one that was no better."""
    rejected: int = 0
    """Trials in a row that were no better."""

    def postpone(self, now: float) -> None:
        """Starts the pause."""
        self.next = now + self.pause

    def reject(self, now: float) -> None:
        """Starts the pause after a trial that was no better, and doubles the next one."""
        self.postpone(now)
        self.pause = min(2 * self.pause, _LONGEST_PAUSE)
        self.rejected += 1

    def halved(self, count: int) -> int:
        """A change of `count` threads, halved for each rejected trial, and in full again after _GUESSES of them."""
        return max(1, count >> self.rejected % _GUESSES) if count else 0


class ThreadTuner:
    """The number of threads for the next step, from 1 to `most`; starts with `most`.

    `idle` returns how many processors were idle since its last call, or None where that is not known.
    """

    def __init__(
        self, most: int, idle: Callable[[], float | None] = lambda: None, clock: Callable[[], float] = monotonic
    ) -> None:
        self.most = most
        self.threads = most
        self.changes = 0
        """How often another number was kept."""
        self.trials = 0
        self.state = State.WATCHING
        self._idle = idle
        self._clock = clock
        self._windows: dict[int, Window] = {}
        """The last steps with the present number of threads, by their kind."""
        self._least: dict[int, float] = {}
        """The least cost of steps of each kind, with any number of threads."""
        self._trial: Trial | None = None
        self._directions = {DOWN: Direction(0.0, _FIRST_PAUSE), UP: Direction(0.0, _FIRST_PAUSE)}
        self._stride = 0
        """While FOLLOWING, how many threads more the next trial has, or fewer where negative."""
        self._next_look = 0.0

    def observe(self, tokens: int, seconds: float, processor_seconds: float) -> int:
        """Learns from a step and the processor time of all threads during it; returns the threads of the next step."""
        if self.most > 1 and tokens and seconds > 0:
            lost = self.threads - processor_seconds / seconds
            kind = _kind(tokens)
            if self._trial is not None:
                self._judge(self._trial, kind, tokens, seconds, lost)
            else:
                self._watch(kind, tokens, seconds, lost)
        return self.threads

    def _watch(self, kind: int, tokens: int, seconds: float, lost: float) -> None:
        window = self._windows.setdefault(kind, Window(kind, _WATCHED_STEPS))
        window.add(tokens, seconds, lost)
        if not window.is_full:
            return
        more = self._more(window)
        self._least[kind] = min(window.cost, self._least.get(kind, window.cost))
        if more < 0 and self.state is State.WATCHING:
            self.state, self._windows = State.SUSPECTING, {}
        elif more:
            self._try(window, more)
        else:
            self.state = State.WATCHING

    def _more(self, window: Window) -> int:
        """How many threads more to try, or fewer where negative; mostly 0."""
        now = self._clock()
        if self.state is State.FOLLOWING:
            if 1 < self.threads < self.most:
                return self._stride
            self.state = State.WATCHING
        down, up = self._directions[DOWN], self._directions[UP]
        if self.threads > 1 and now >= down.next and (crowded := self._crowded(window)):
            return -down.halved(crowded)
        if self.threads < self.most and now >= max(self._next_look, up.next):
            self._next_look = now + _LOOK_SECONDS
            return up.halved(self._free())
        return 0

    def _crowded(self, window: Window) -> int:
        """How many threads seem to be too many: of two that share a processor, each loses half of its time."""
        usual = _LOST_EACH * self.threads
        if window.mean_lost > _LOST + usual:
            return max(1, round(2 * (window.mean_lost - usual)))
        return int(window.cost > _SLOW * self._least.get(window.kind, window.cost))

    def _free(self) -> int:
        """For how many more threads there seem to be idle processors; 1 where that is not known."""
        idle = self._idle()
        return 1 if idle is None else int(idle + 1 - _FREE)

    def _try(self, window: Window, more: int) -> None:
        follows, direction = self.state is State.FOLLOWING, UP if more > 0 else DOWN
        self._trial = Trial(direction, self.threads, window.cost, Window(window.kind, _TRIED_STEPS), follows)
        self.threads = min(self.most, max(1, self.threads + more))
        self.trials += 1
        self.state = State.TRYING

    def _judge(self, trial: Trial, kind: int, tokens: int, seconds: float, lost: float) -> None:
        if kind != trial.window.kind:
            self._skip(trial)
            return
        is_first, trial.is_first = trial.is_first, False
        if seconds / tokens > _MUCH_SLOWER * trial.cost:
            self._reject(trial)
        elif not is_first or seconds > _LONG_SECONDS:
            trial.window.add(tokens, seconds, lost)
            if trial.window.is_full and trial.window.cost < _BETTER[trial.direction] * trial.cost:
                self._accept(trial)
            elif trial.window.is_full:
                self._reject(trial)

    def _skip(self, trial: Trial) -> None:
        """Skips a step that cannot be compared; too many of them end the trial without a result."""
        trial.others += 1
        if trial.others > _PATIENCE_STEPS:
            self._directions[trial.direction].postpone(self._clock())
            self._end_trial(trial.before, State.FOLLOWING if trial.follows else State.WATCHING)

    def _accept(self, trial: Trial) -> None:
        """Keeps the new number, and goes further in the same direction with larger strides."""
        self.changes += 1
        self._stride = 2 * (self._stride if trial.follows else trial.direction)
        later = self._clock() + _FIRST_PAUSE
        self._directions = {DOWN: Direction(later, _FIRST_PAUSE), UP: Direction(later, _FIRST_PAUSE)}
        self._directions[trial.direction].next = 0.0
        self._idle()
        self._end_trial(self.threads, State.FOLLOWING)

    def _reject(self, trial: Trial) -> None:
        """Returns to the number from before; what its steps cost now counts as normal until that changes."""
        self._directions[trial.direction].reject(self._clock())
        self._least[trial.window.kind] = trial.cost
        self._end_trial(trial.before, State.WATCHING)

    def _end_trial(self, threads: int, state: State) -> None:
        self.threads, self.state = threads, state
        self._trial = None
        self._windows = {}


def _kind(tokens: int) -> int:
    """The kind of a step; steps of one kind can be compared by the time for a token."""
    return min(tokens, _MANY_TOKENS)
