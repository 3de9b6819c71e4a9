"""A simulated machine whose processors others use at times, for the choice of the number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from llama_backend.engine.placement.thread_tuner import ThreadTuner

Busy = Callable[[float], int]


@dataclass
class Machine:
    """Threads that share a processor hold up all others, as on the machines that were measured."""

    processors: int
    busy: Busy = lambda now: 0
    """Processors that others use at a time."""
    knows_idle: bool = True
    jitter: float = 0.05
    work: float = 0.014
    """Processor seconds of a step of one token, with two processors; more on larger ones."""
    now: float = 0.0
    random: Random = field(default_factory=lambda: Random(7))

    def step(self, threads: int, tokens: int) -> tuple[float, float]:
        """Seconds of a step, and the processor seconds of its threads."""
        seconds = self.cost(threads, tokens) * (1 + self.random.random() * self.jitter)
        lost = 0.03 * threads + self.crowded(threads) / 2
        self.now += seconds
        return seconds, (threads - lost) * seconds

    def crowded(self, threads: int) -> int:
        """Threads that share a processor."""
        return max(0, threads + self.busy(self.now) - self.processors)

    def cost(self, threads: int, tokens: int) -> float:
        work = self.work * (0.7 + 0.3 * tokens) * self.processors / 2
        return float(work / threads**0.9) * (3 if self.crowded(threads) else 1)

    def idle(self, tuner: ThreadTuner) -> float | None:
        free = self.processors - self.busy(self.now) - tuner.threads
        return max(0.0, float(free)) if self.knows_idle else None

    def least(self, tokens: int) -> float:
        """What a step takes with the best number of threads."""
        return min(self.cost(threads, tokens) for threads in range(1, self.processors + 1))


def tuner_on(machine: Machine) -> ThreadTuner:
    tuner = ThreadTuner(machine.processors, lambda: machine.idle(tuner), lambda: machine.now)
    return tuner
