"""A prompt of 2,600 words comes while four streams run: how long nobody gets a token, and when it gets its first."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import WORDS, Answer, ask, session
from tests.bench.programs import Program, free_port, llama_server, ours, running

STREAMS, SLOTS, CONTEXT, THREADS = 4, 5, 4096, 2
RUNNING_TOKENS, STARTED_TOKENS = 300, 20
LONG_WORDS = 2600


@dataclass
class Stall:
    """Of each round, in seconds: the longest gap in the running streams, and the long prompt's first token."""

    gaps: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        gap, first = statistics.median(self.gaps), statistics.median(self.first_tokens)
        return f"{name:16} a long prompt beside 4 streams: longest gap {gap:.2f} s, its first token {first:.2f} s"


def measure(model: Path, reference: Path | None, rounds: int = 3) -> dict[str, Stall]:
    """The median of a few rounds, program after program in each."""
    makers: list[Callable[[int], Program]] = [lambda port: ours(model, SLOTS, CONTEXT, THREADS, port)]
    if (folder := reference) is not None:
        makers.append(lambda port: llama_server(folder, model, SLOTS, CONTEXT, THREADS, port))
    found: dict[str, Stall] = {}
    for _ in range(rounds):
        for make in makers:
            port = free_port()
            program = make(port)
            with running(program, port) as url:
                long, others = asyncio.run(_meet(url))
            stall = found.setdefault(program.name, Stall())
            stall.gaps.append(max(_gap_during(other, long) for other in others))
            stall.first_tokens.append(long.first_token)
    return found


async def _meet(url: str) -> tuple[Answer, list[Answer]]:
    """The long prompt's answer and the others', which are under way when it is asked."""
    started = asyncio.Semaphore(0)
    async with session() as client:
        others = [
            asyncio.create_task(ask(client, url, _short(number), RUNNING_TOKENS, started.release))
            for number in range(STREAMS)
        ]
        for _ in range(STREAMS * STARTED_TOKENS):
            await started.acquire()
        long = await ask(client, url, _long(), 8)
        return long, await asyncio.gather(*others)


def _gap_during(other: Answer, long: Answer) -> float:
    """The longest gap that touches the time from the long prompt's request to its first token."""
    pairs = zip(other.times, [*other.times[1:], other.end], strict=True)
    until = long.begin + long.first_token
    return max((after - before for before, after in pairs if after > long.begin and before < until), default=0.0)


def _short(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Tell story {number}, {random.random():.6f}, about a {WORDS[number]}."}]


def _long() -> list[dict[str, str]]:
    return [{"role": "user", "content": " ".join(random.choices(WORDS, k=LONG_WORDS))}]
