"""A closed loop of chat requests: `streams` clients, each asking again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass, field

import aiohttp

WORDS = ["river", "stone", "lantern", "copper", "orchard", "winter", "harbor", "violin", "meadow", "cinder"]
MAX_TOKENS = 64


@dataclass
class Result:
    """What one run of the loop brought; times in seconds."""

    tokens: int = 0
    wall: float = 0.0
    errors: int = 0
    first_token: list[float] = field(default_factory=list)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.wall

    @property
    def median_first_token(self) -> float:
        return statistics.median(self.first_token)


def run_load(url: str, streams: int, requests: int, seed: int) -> Result:
    """Runs `requests` prompts that no cache has seen, `MAX_TOKENS` tokens each."""
    return asyncio.run(_run(url, streams, requests, random.Random(seed)))


async def _run(url: str, streams: int, requests: int, rng: random.Random) -> Result:
    result, prompts = Result(), [_prompt(rng) for _ in range(requests)]
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        begin = time.perf_counter()
        await asyncio.gather(*(_client(session, url, prompts, result) for _ in range(streams)))
        result.wall = time.perf_counter() - begin
    return result


def _prompt(rng: random.Random) -> str:
    return f"Story {rng.random():.6f}: tell about a {' '.join(rng.choices(WORDS, k=20))}."


async def _client(session: aiohttp.ClientSession, url: str, prompts: list[str], result: Result) -> None:
    while prompts:
        await _ask(session, url, prompts.pop(), result)


async def _ask(session: aiohttp.ClientSession, url: str, prompt: str, result: Result) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    begin = time.perf_counter()
    first, pieces, usage = None, 0, None
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        async for line in answer.content:
            event = json.loads(line[6:]) if line.startswith(b"data: {") else {}
            if event.get("error"):
                result.errors += 1
            usage = event.get("usage") or usage
            if event.get("choices") and event["choices"][0]["delta"].get("content"):
                pieces += 1
                first = first or time.perf_counter()
    result.first_token.append((first or time.perf_counter()) - begin)
    result.tokens += usage["completion_tokens"] if usage else pieces
