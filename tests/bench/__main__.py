"""`make bench`: this backend beside other programs, in one run, on the demo model.

Set LLAMA_REFERENCE to a folder with llama.cpp's own llama-server, llama-cli and llama-bench, built from the
sources that the pinned llama-cpp-python carries. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from llama_backend.models import demo_model
from tests.bench import commands
from tests.bench.busy import measure_busy
from tests.bench.load import run_load
from tests.bench.programs import Program, free_port, llama_cpp_server, llama_server, ours, reference_folder, running
from tests.bench.reopening import reopen
from tests.bench.speculation import speculation

SLOTS, CONTEXT, THREADS, ROUNDS = 16, 1024, 2, 3
PROMPT_MARKER = b"rite a message"
"""Of the box to write in; the cursor stands on the first letter."""


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


def main() -> None:
    model = demo_model()
    if model is None:
        raise SystemExit("the demo model is not installed")
    reference = reference_folder()
    if reference is not None:
        print("llama-bench:", llama_bench(reference, model.path))
    for name, figures in servers(model.path, reference).items():
        print(_server_row(name, figures))
    print(reopen(model.path).row)
    print(measure_busy(model.path, reference).row)
    print(*speculation(model.path, reference), sep="\n")
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"HOME": home, "XDG_RUNTIME_DIR": home, "LLM_USER_PATH": home}
        _print_commands(model.path, reference)


def _server_row(name: str, figures: Figures) -> str:
    one, sixteen = statistics.median(figures.one), statistics.median(figures.sixteen)
    first = statistics.median(figures.first_token)
    share = ", ".join(f"{part:.1%} at {streams}" for streams, part in figures.python_share.items())
    row = f"{name:16} 1 stream {one:5.0f} tokens/s, 16 streams {sixteen:5.0f}, time to first token {first:.2f} s"
    return (
        row + (f", Python's share {share}" if share else "") + (f", {figures.errors} errors" if figures.errors else "")
    )


def _print_commands(model: Path, reference: Path | None) -> None:
    try:
        print(f"ask, warm: start to first byte {commands.ask_warm():.2f} s")
        print(f"ask, cold: start to end of 10 tokens {commands.ask_cold():.2f} s")
        if reference is not None:
            print(f"llama-cli: start to end of 10 tokens {commands.llama_cli(reference, model, THREADS):.2f} s")
        if (other := commands.llm()) is not None:
            print(f"llm: start to first byte {other:.2f} s")
        print(f"TUI: start to first paint {commands.first_paint(PROMPT_MARKER):.2f} s")
    finally:
        commands.stop()


if __name__ == "__main__":
    main()
