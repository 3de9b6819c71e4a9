"""What a server lives through: engines that are killed, clients that go away, a slow reader, hours of load.

`python -m tests.bench.survival [kills|storm|slow|soak]…`; all but the soak where nothing is named. Each prints a line
and fails where the server did not live up to it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import msgspec

from llama_backend.models.installed import demo_model
from llama_backend.wire.status import BackendStatus
from tests.bench.load import WORDS, Answer, Messages, ask, session
from tests.bench.programs import free_port, ours, running

SLOTS, CONTEXT, THREADS = 16, 1024, 2
KILLS, STREAMS = 50, 16
CLIENTS_THAT_LEAVE, AT_ONCE = 1000, 64
_PAUSE_SECONDS = 0.2
"""Before a client asks again that got an error; `Retry-After` would have it wait longer."""
SOAK_SECONDS, SETTLED_SECONDS = 1200, 120

Proof = Callable[[aiohttp.ClientSession, str], Awaitable[str]]


async def status(client: aiohttp.ClientSession, url: str) -> BackendStatus:
    async with client.get(f"{url}/v1/status") as response:
        return msgspec.json.decode(await response.read(), type=BackendStatus)


async def until_idle(client: aiohttp.ClientSession, url: str, seconds: float = 10) -> BackendStatus:
    """The status once nothing is running or waiting."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = await status(client, url)
        if not (found.running or found.waiting or found.active):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"still at work after {seconds} s: {found}")


def question() -> Messages:
    return [{"role": "user", "content": f"{random.random():.6f}: {' '.join(random.choices(WORDS, k=12))}?"}]


async def kills(client: aiohttp.ClientSession, url: str) -> str:
    """Kills the engine again and again while streams run; each must end whole or with an error event."""
    outcomes: Counter[str] = Counter()
    over = asyncio.Event()

    async def stream() -> None:
        while not over.is_set():
            outcome = _outcome(await ask(client, url, question(), 48))
            outcomes[outcome] += 1
            await asyncio.sleep(0 if outcome == "whole" else _PAUSE_SECONDS)

    streams = [asyncio.create_task(stream()) for _ in range(STREAMS)]
    backs = [await _kill(client, url) for _ in range(KILLS)]
    over.set()
    await asyncio.gather(*streams)
    restarts = (await until_idle(client, url)).restarts
    assert restarts == KILLS, f"{restarts} restarts after {KILLS} kills"
    assert not outcomes["cut off"], outcomes
    assert max(backs) <= 2, f"an engine was back after {max(backs):.2f} s"
    return f"{KILLS} engines killed under {STREAMS} streams: back within {max(backs):.2f} s; streams: {dict(outcomes)}"


def _outcome(answer: Answer) -> str:
    if answer.error is None:
        return "whole" if answer.tokens == 48 else "cut off"
    return "error event" if "engine_died" in answer.error else answer.error[:80]


async def _kill(client: aiohttp.ClientSession, url: str) -> float:
    """Kills the engine in mid-work; returns the seconds until the next one decodes."""
    await asyncio.sleep(random.uniform(0.5, 2.5))
    pid = (await status(client, url)).engine_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    begin = time.perf_counter()
    while time.perf_counter() < begin + 30:
        found = await status(client, url)
        if found.state == "ready" and found.engine_pid != pid:
            return time.perf_counter() - begin
        await asyncio.sleep(0.02)
    raise AssertionError("no engine came back within 30 s")


async def storm(client: aiohttp.ClientSession, url: str) -> str:
    """Clients that go away at any moment leave nothing behind."""
    await _leave_all(client, url, CLIENTS_THAT_LEAVE // 10)
    before = (await until_idle(client, url)).rss or 0
    begin = time.perf_counter()
    await _leave_all(client, url, CLIENTS_THAT_LEAVE)
    after = (await until_idle(client, url)).rss or 0
    growth = after / before - 1
    answer = await ask(client, url, question(), 16)
    assert answer.error is None, answer.error
    assert growth <= 0.02, f"memory grew by {growth:.1%}"
    took = time.perf_counter() - begin
    return f"{CLIENTS_THAT_LEAVE} clients that went away in {took:.0f} s: nothing runs, memory {growth:+.1%}"


async def _leave_all(client: aiohttp.ClientSession, url: str, count: int) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def leave() -> None:
        async with gate:
            with suppress(TimeoutError):
                await asyncio.wait_for(ask(client, url, question(), 200), random.uniform(0.0, 1.0))

    await asyncio.gather(*(leave() for _ in range(count)))


async def slow(client: aiohttp.ClientSession, url: str) -> str:
    """A client that does not read holds nobody up."""
    alone = await ask(client, url, question(), 200)
    body = {"messages": question(), "max_tokens": 900, "stream": True, "ignore_eos": True}
    async with client.post(f"{url}/v1/chat/completions", json=body) as idle:
        assert idle.status == 200
        beside = await ask(client, url, question(), 200)
    assert beside.error is None, beside.error
    gap = beside.longest_gap
    assert gap < 1, f"a gap of {gap:.2f} s"
    return f"beside a client that does not read: longest gap {gap:.2f} s, alone {alone.longest_gap:.2f} s"


async def soak(client: aiohttp.ClientSession, url: str) -> str:
    """Mixed load for twenty minutes; memory after the first two must stay what it was."""
    end = time.monotonic() + SOAK_SECONDS
    outcomes: Counter[str] = Counter()

    async def work() -> None:
        while time.monotonic() < end:
            outcomes[await _something(client, url)] += 1

    work_done = asyncio.gather(*(work() for _ in range(8)))
    await asyncio.sleep(SETTLED_SECONDS)
    settled, most = (await status(client, url)).rss or 0, 0
    while not work_done.done():
        await asyncio.sleep(5)
        most = max(most, (await status(client, url)).rss or 0)
    await work_done
    growth = most / settled - 1
    assert growth <= 0.02, f"memory grew by {growth:.1%} from {settled >> 20} MiB"
    return f"{SOAK_SECONDS // 60} min of mixed load: memory {growth:+.1%} of {settled >> 20} MiB; {dict(outcomes)}"


async def _something(client: aiohttp.ClientSession, url: str) -> str:
    match random.randrange(4):
        case 0:
            return "long prompt" if (await ask(client, url, _long(), 8)).error is None else "error"
        case 1:
            with suppress(TimeoutError):
                await asyncio.wait_for(ask(client, url, question(), 200), random.uniform(0.0, 3.0))
            return "left"
        case 2:
            async with client.post(f"{url}/v1/chat/completions", json={"messages": 3}) as response:
                return f"refused {response.status}"
        case _:
            return "answer" if (await ask(client, url, question(), 100)).error is None else "error"


def _long() -> Messages:
    return [{"role": "user", "content": " ".join(random.choices(WORDS, k=600))}]


PROOFS: dict[str, Proof] = {"kills": kills, "storm": storm, "slow": slow, "soak": soak}


async def _prove(model: Path, proof: Proof) -> str:
    port = free_port()
    with running(ours(model, SLOTS, CONTEXT, THREADS, port), port) as url:
        async with session() as client:
            return await proof(client, url)


def main(names: list[str]) -> None:
    model = demo_model()
    if model is None:
        raise SystemExit("the demo model is not installed")
    for name in names or [name for name in PROOFS if name != "soak"]:
        print(asyncio.run(_prove(model.path, PROOFS[name])), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
