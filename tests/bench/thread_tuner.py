"""What the constants of the thread tuner are worth, on simulated processors that others take and leave.

`python -m tests.bench.thread_tuner` writes for each constant, as it is and with other values, by how much a minute of
steps takes longer than with the best number of threads at each moment, and how many trials there were.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from random import Random
from statistics import fmean

from llama_backend.engine.placement import thread_tuner
from llama_backend.engine.placement.thread_tuner import DOWN, UP
from tests.support.engine.busy_machine import Machine, tuner_on

SECONDS, SPAN = 60.0, 4.0
WIDTHS = {"alike": [1], "changing": [1, 1, 2, 3]}
"""Tokens of a step, of which one is chosen at random."""
OTHERS: dict[str, list[object]] = {
    "_WATCHED_STEPS": [3, 12],
    "_TRIED_STEPS": [2, 8],
    "_SLOW": [1.1, 2.0],
    "_LOST": [0.05, 0.5],
    "_LOST_EACH": [0.0, 0.1],
    "_FREE": [0.3, 0.95],
    "_LOOK_SECONDS": [0.25, 4.0],
    "_BETTER": [{DOWN: 0.99, UP: 0.99}, {DOWN: 0.8, UP: 0.8}],
    "_MUCH_SLOWER": [1.2, 10.0],
    "_PATIENCE_STEPS": [3, 50],
    "_FIRST_PAUSE": [0.5, 8.0],
    "_LONGEST_PAUSE": [4.0, 600.0],
    "_GUESSES": [1, 6],
}


def busy_machine(seed: int, processors: int, jitter: float) -> Machine:
    """Every four seconds others use none, one or half of the processors."""
    random = Random(seed)
    levels = [random.choice([0, 0, 1, max(1, processors // 2)]) for _ in range(int(SECONDS / SPAN) + 1)]
    machine = Machine(processors, lambda now: levels[min(int(now / SPAN), len(levels) - 1)], random.random() < 0.5)
    machine.jitter = jitter
    return machine


def minute(machine: Machine, widths: list[int]) -> tuple[float, float, float]:
    """Time in parts of the least possible, that of a thread for each processor, and trials in a thousand steps."""
    tuner, total, least, fixed, steps = tuner_on(machine), 0.0, 0.0, 0.0, 0
    while machine.now < SECONDS:
        tokens, usual = machine.random.choice(widths), 1 + machine.jitter / 2
        least += machine.least(tokens) * usual
        fixed += machine.cost(machine.processors, tokens) * usual
        seconds, processor_seconds = machine.step(tuner.threads, tokens)
        tuner.observe(tokens, seconds, processor_seconds)
        total, steps = total + seconds, steps + 1
    return total / least, fixed / least, 1000 * tuner.trials / steps


def measured() -> Iterator[str]:
    for name, widths in WIDTHS.items():
        machines = [busy_machine(*case) for case in product(range(6), (2, 4, 8), (0.05, 0.15, 0.3))]
        cost, fixed, trials = map(fmean, zip(*(minute(machine, widths) for machine in machines), strict=True))
        yield f"{name}: +{cost - 1:.1%} (fixed +{fixed - 1:.0%}), {trials:.1f} trials"


def main() -> None:
    print("as it is:", *measured(), sep="  ", flush=True)
    for name, values in OTHERS.items():
        usual = getattr(thread_tuner, name)
        for value in values:
            setattr(thread_tuner, name, value)
            print(f"{name} = {value}:", *measured(), sep="  ", flush=True)
        setattr(thread_tuner, name, usual)


if __name__ == "__main__":
    main()
