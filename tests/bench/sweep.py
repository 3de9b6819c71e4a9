"""Tokens per second and time to first token against the number of streams, as a table and as a picture.

`python -m tests.bench.sweep FILE.png`; LLAMA_REFERENCE as for `make bench`.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_backend.models.installed import demo_model
from tests.bench.load import run_load
from tests.bench.programs import Program, free_port, llama_cpp_server, llama_server, ours, reference_folder, running

STREAMS = (1, 2, 4, 8, 16, 32)
CONTEXT, THREADS = 512, 2
_COLOURS = {"llama-chat": "#c2410c", "llama-server": "#1d4ed8", "llama_cpp.server": "#6b7280"}


@dataclass(frozen=True)
class Point:
    """What one program reached with a number of streams; the 95th percentile of the first token is in seconds."""

    streams: int
    tokens_per_second: float
    first_token: float


def sweep(model: Path, reference: Path | None) -> dict[str, list[Point]]:
    """All programs at one number of streams after another, so that a slow moment hits all."""
    slots = max(STREAMS)
    makers: list[Callable[[int], Program]] = [lambda port: ours(model, slots, CONTEXT, THREADS, port)]
    if (folder := reference) is not None:
        makers.append(lambda port: llama_server(folder, model, slots, CONTEXT, THREADS, port))
    makers.append(lambda port: llama_cpp_server(model, CONTEXT, THREADS, port))
    found: dict[str, list[Point]] = {}
    for streams in STREAMS:
        for make in makers:
            port = free_port()
            program = make(port)
            found.setdefault(program.name, []).append(_point(program, port, streams))
    return found


def _point(program: Program, port: int, streams: int) -> Point:
    with running(program, port) as url:
        run_load(url, 1, 1, random.randrange(2**31))
        result = run_load(url, streams, max(4, streams + streams // 2), random.randrange(2**31))
    return Point(streams, result.tokens_per_second, result.p95_first_token)


def table(found: dict[str, list[Point]]) -> str:
    """Markdown: a row for each number of streams."""
    names = list(found)
    head = ["| streams | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    rows = [
        f"| {points[0].streams} | "
        + " | ".join(f"{p.tokens_per_second:.0f}, {p.first_token:.2f} s" for p in points)
        + " |"
        for points in zip(*found.values(), strict=True)
    ]
    return "\n".join(head + rows)


def plot(found: dict[str, list[Point]], file: Path) -> None:
    """Two curves for each program, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    rate, first = figure.subplots(1, 2)
    for name, points in found.items():
        streams = [point.streams for point in points]
        rate.plot(streams, [point.tokens_per_second for point in points], marker="o", label=name, color=_COLOURS[name])
        first.plot(streams, [point.first_token for point in points], marker="o", label=name, color=_COLOURS[name])
    rate.set(title="Tokens per second, all streams together", xlabel="streams", ylim=(0, None))
    first.set(title="Time to first token, 95th percentile, s", xlabel="streams", yscale="log")
    for axes in (rate, first):
        axes.set_xscale("log", base=2)
        axes.set_xticks(STREAMS, [str(streams) for streams in STREAMS])
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    rate.legend(frameon=False)
    figure.savefig(file, dpi=130)


def main(file: Path) -> None:
    model = demo_model()
    if model is None:
        raise SystemExit("the demo model is not installed")
    found = sweep(model.path, reference_folder())
    print(table(found))
    plot(found, file)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
