"""64 clients on a pool of KV cells that holds six of them: who gets a whole answer, and the one it gets alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.load import WORDS, Answer, ask, session
from tests.bench.programs import Program, free_port, llama_server, ours, running

CLIENTS, SLOTS, CELLS, THREADS = 64, 16, 2048, 2
PROMPT_WORDS, MAX_TOKENS = 230, 32
"""About 340 cells each, so that the pool holds six."""


@dataclass(frozen=True)
class Crowd:
    """Of the clients' answers: how many failed, and how many are those that our server gives one at a time."""

    failed: int
    equal: int
    seconds: float
    error: str | None

    def row(self, name: str) -> str:
        what = f"64 clients on 2,048 cells: {self.failed} failed, {self.equal} as alone, {self.seconds:.0f} s"
        return f"{name:16} {what}" + (f" ({self.error[:80]})" if self.error else "")


def measure(model: Path, reference: Path | None) -> dict[str, Crowd]:
    makers: list[Callable[[int], Program]] = [lambda port: ours(model, SLOTS, CELLS, THREADS, port, kv_cells=CELLS)]
    if (folder := reference) is not None:
        makers.append(lambda port: _one_pool(llama_server(folder, model, SLOTS, CELLS // SLOTS, THREADS, port)))
    found = {}
    alone: list[Answer] = []
    for make in makers:
        port = free_port()
        program = make(port)
        if not alone:
            with running(program, port) as url:
                alone = asyncio.run(_answers(url, 1))
        with running(program, port) as url:
            found[program.name] = _compared(alone, asyncio.run(_answers(url, CLIENTS)))
    return found


def _one_pool(program: Program) -> Program:
    return replace(program, command=[*program.command, "--kv-unified"])


def _compared(alone: list[Answer], together: list[Answer]) -> Crowd:
    errors = [answer.error for answer in together if answer.error is not None]
    equal = sum(one.text == other.text for one, other in zip(alone, together, strict=True) if other.error is None)
    seconds = max(answer.end for answer in together) - min(answer.begin for answer in together)
    return Crowd(len(errors), equal, seconds, errors[0] if errors else None)


async def _answers(url: str, at_once: int) -> list[Answer]:
    gate = asyncio.Semaphore(at_once)

    async def one(number: int) -> Answer:
        async with gate:
            return await ask(client, url, _messages(number), MAX_TOKENS)

    async with session() as client:
        return await asyncio.gather(*(one(number) for number in range(CLIENTS)))


def _messages(number: int) -> list[dict[str, str]]:
    words = [WORDS[(number * 7 + n * (number % 5 + 1)) % len(WORDS)] for n in range(PROMPT_WORDS)]
    return [{"role": "user", "content": f"Tale {number}: {' '.join(words)}."}]
