"""One stream and sixteen over HTTP, at this backend and at others."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import run_load
from tests.bench.programs import Program, free_port, llama_cpp_server, llama_server, ours, running

SLOTS, CONTEXT, THREADS, ROUNDS = 16, 1024, 2, 3


@dataclass
class Figures:
    """Tokens per second of one program, a number a round; `python_share` is ours only."""

    one: list[float] = field(default_factory=list)
    sixteen: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    python_share: dict[int, float] = field(default_factory=dict)
    errors: int = 0


def measure(program: Program, port: int, figures: Figures) -> None:
    """One round: one stream, then sixteen, on a freshly started server."""
    with running(program, port) as url:
        run_load(url, 1, 1, random.randrange(2**31))
        for streams, requests, into in ((1, 6, figures.one), (SLOTS, 2 * SLOTS, figures.sixteen)):
            before = _step_times(url) if program.name == "llama-chat" else None
            result = run_load(url, streams, requests, random.randrange(2**31))
            into.append(result.tokens_per_second)
            figures.errors += result.errors
            if before is not None:
                figures.python_share[streams] = _python_share(before, _step_times(url))
        figures.first_token.append(result.median_first_token)


def _step_times(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/v1/status") as answer:
        times: dict[str, float] = json.load(answer)["step_times"]
    return times


def _python_share(before: dict[str, float], after: dict[str, float]) -> float:
    """The part of the steps' time outside llama.cpp's decode and samplers."""
    spent = {name: after[name] - before[name] for name in ("total", "decode", "sample")}
    return 1 - (spent["decode"] + spent["sample"]) / spent["total"]


def servers(model: Path, reference: Path | None) -> dict[str, Figures]:
    """The HTTP loads, program after program in each round, so that a slow moment hits all."""
    makers: list[Callable[[int], Program]] = [lambda port: ours(model, SLOTS, CONTEXT, THREADS, port)]
    if reference is not None:
        folder = reference
        makers.append(lambda port: llama_server(folder, model, SLOTS, CONTEXT, THREADS, port))
    makers.append(lambda port: llama_cpp_server(model, CONTEXT, THREADS, port))
    found: dict[str, Figures] = {}
    for _ in range(ROUNDS):
        for make in makers:
            port = free_port()
            program = make(port)
            measure(program, port, found.setdefault(program.name, Figures()))
    return found


def llama_bench(reference: Path, model: Path) -> str:
    """llama-bench's own figures for the machine."""
    options = ["-m", str(model), "-t", str(THREADS), "-p", "512", "-n", "128", "-o", "json"]
    output = subprocess.run([str(reference / "llama-bench"), *options], check=True, capture_output=True).stdout
    rates = {
        f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}": row["avg_ts"] for row in json.loads(output)
    }
    return ", ".join(f"{name} {rate:.0f} tokens/s" for name, rate in rates.items())


def rows(model: Path, reference: Path | None) -> Iterator[str]:
    """A row for each program; llama-bench's figures come first."""
    if reference is not None:
        yield f"llama-bench: {llama_bench(reference, model)}"
    for name, figures in servers(model, reference).items():
        yield _server_row(name, figures)


def _server_row(name: str, figures: Figures) -> str:
    one, sixteen = statistics.median(figures.one), statistics.median(figures.sixteen)
    first = statistics.median(figures.first_token)
    share = ", ".join(f"{part:.1%} at {streams}" for streams, part in figures.python_share.items())
    row = f"{name:16} 1 stream {one:5.0f} tokens/s, 16 streams {sixteen:5.0f}, time to first token {first:.2f} s"
    return (
        row + (f", Python's share {share}" if share else "") + (f", {figures.errors} errors" if figures.errors else "")
    )
