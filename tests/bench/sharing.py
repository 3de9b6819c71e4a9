"""Eight streams whose prompts begin with one system prompt of 400 words."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.load import MANY_WORDS, run_load
from tests.bench.programs import Program, free_port, llama_server, ours, running

STREAMS, REQUESTS, CONTEXT, THREADS = 8, 24, 1024, 2


@dataclass
class Shared:
    """Of each round: tokens per second, and the 95th percentile of the time to the first token in seconds."""

    rates: list[float] = field(default_factory=list)
    first_tokens: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        rate, first = statistics.median(self.rates), statistics.median(self.first_tokens)
        return f"{name:16} 8 streams, one system prompt: {rate:5.0f} tokens/s, p95 first token {first:.2f} s"


def measure(model: Path, reference: Path | None, rounds: int = 3) -> dict[str, Shared]:
    """The median of a few rounds, program after program in each; each begins with a server that knows nothing."""
    makers: list[Callable[[int], Program]] = [lambda port: ours(model, STREAMS, CONTEXT, THREADS, port)]
    if (folder := reference) is not None:
        makers.append(lambda port: llama_server(folder, model, STREAMS, CONTEXT, THREADS, port))
    found: dict[str, Shared] = {}
    for _ in range(rounds):
        for make in makers:
            port = free_port()
            program = make(port)
            with running(program, port) as url:
                run_load(url, 1, 1, random.randrange(2**31))
                result = run_load(url, STREAMS, REQUESTS, random.randrange(2**31), _system_prompt(), MANY_WORDS)
            shared = found.setdefault(program.name, Shared())
            shared.rates.append(result.tokens_per_second)
            shared.first_tokens.append(result.p95_first_token)
    return found


def _system_prompt() -> str:
    return " ".join(random.Random(7).choices(MANY_WORDS, k=400))
