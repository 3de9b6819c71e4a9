"""64 clients on a pool of KV cells that holds six of them: who gets a whole answer, and the one it gets alone.

Ours with one pool for all, which gives way and takes up again; with six sequences that have cells of their own, neither
flash attention nor speculation, where an answer's last bits do not depend on others; and llama-server with one pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.load import WORDS, Answer, ask, session
from tests.bench.programs import Program, free_port, llama_server, ours, running

CLIENTS, SLOTS, CELLS, HELD, THREADS = 64, 16, 2048, 6, 2
PROMPT_WORDS, MAX_TOKENS = 230, 32
"""About 340 cells each, so that the pool holds six."""


@dataclass(frozen=True)
class Crowd:
    """Of the clients' answers: how many failed, and how many are those that the server gives one at a time."""

    failed: int
    equal: int | None
    """None where one at a time was not measured."""
    seconds: float
    error: str | None

    def row(self, name: str) -> str:
        alone = "" if self.equal is None else f"{self.equal} as alone, "
        what = f"64 clients on 2,048 cells: {self.failed} failed, {alone}{self.seconds:.0f} s"
        return f"{name:16} {what}" + (f" ({self.error[:80]})" if self.error else "")


def measure(model: Path, reference: Path | None) -> dict[str, Crowd]:
    exact = {"flash_attention": False, "speculation": False}
    found = {
        "one pool": _ours(lambda port: ours(model, SLOTS, CELLS, THREADS, port, kv_cells=CELLS)),
        "cells of each": _ours(lambda port: ours(model, HELD, CELLS // HELD, THREADS, port, **exact)),
    }
    if (folder := reference) is not None:
        found["llama-server"] = _crowd(_run(lambda port: _theirs(folder, model, port), CLIENTS), None)
    return found


def _ours(make: Callable[[int], Program]) -> Crowd:
    alone = _run(make, 1)
    return _crowd(_run(make, CLIENTS), alone)


def _run(make: Callable[[int], Program], at_once: int) -> list[Answer]:
    """The answers of a program that is started for them."""
    port = free_port()
    with running(make(port), port) as url:
        return asyncio.run(_answers(url, at_once))


def _theirs(folder: Path, model: Path, port: int) -> Program:
    program = llama_server(folder, model, SLOTS, CELLS // SLOTS, THREADS, port)
    return replace(program, command=[*program.command, "--kv-unified"])


def _crowd(together: list[Answer], alone: list[Answer] | None) -> Crowd:
    errors = [answer.error for answer in together if answer.error is not None]
    seconds = max(answer.end for answer in together) - min(answer.begin for answer in together)
    equal = None
    if alone is not None:
        equal = sum(one.text == other.text for one, other in zip(alone, together, strict=True) if other.error is None)
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
