"""Tokens per second while another process keeps one processor busy: `python -m tests.bench.busy`.

Two processors are used, whatever the machine has. The programs take turns, so that a slow moment hits all.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llama_backend.models.installed import demo_model
from tests.bench.load import run_load
from tests.bench.programs import Program, free_port, llama_server, ours, reference_folder, running

_PROCESSORS, _CONTEXT, _ROUNDS, _REQUESTS = 2, 1024, 3, 4


@dataclass
class Busy:
    """Tokens per second of one stream, by program, a number a round."""

    rates: dict[str, list[float]] = field(default_factory=dict)

    @property
    def row(self) -> str:
        found = [f"{name} {statistics.median(rates):.0f}" for name, rates in self.rates.items()]
        return f"one of {_PROCESSORS} processors busy, one stream, tokens/s: {', '.join(found)}"


def measure_busy(model: Path, reference: Path | None, rounds: int = _ROUNDS) -> Busy:
    """Each program in turn, with a process beside it that computes all the time."""
    makers: dict[str, Callable[[int], Program]] = {
        "llama-chat": lambda port: ours(model, 1, _CONTEXT, None, port),
        f"with --threads {_PROCESSORS}": lambda port: ours(model, 1, _CONTEXT, _PROCESSORS, port),
    }
    if reference is not None:
        folder = reference
        makers["llama-server"] = lambda port: llama_server(folder, model, 1, _CONTEXT, _PROCESSORS, port)
    busy, before = Busy(), os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(sorted(before)[:_PROCESSORS]))
    try:
        for number in range(rounds):
            for name, make in makers.items():
                busy.rates.setdefault(name, []).append(_rate(make, number))
    finally:
        os.sched_setaffinity(0, before)
    return busy


def _rate(make: Callable[[int], Program], seed: int) -> float:
    port = free_port()
    with running(make(port), port) as url, _one_busy():
        return run_load(url, 1, _REQUESTS, seed).tokens_per_second


@contextmanager
def _one_busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    found = demo_model()
    if found is None:
        raise SystemExit("the demo model is not installed")
    print(measure_busy(found.path, reference_folder()).row)
