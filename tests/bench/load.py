"""A closed loop of chat requests: `streams` clients, each asking again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

WORDS = ["river", "stone", "lantern", "copper", "orchard", "winter", "harbor", "violin", "meadow", "cinder"]
MANY_WORDS = [*WORDS, "maple", "canyon", "ember", "thistle", "garnet", "willow"]
"""Words of which the demo model makes more tokens: 490 of a system prompt of 400 of them, instead of 442."""
MAX_TOKENS = 64

Messages = list[dict[str, str]]


@dataclass
class Answer:
    """What one request brought. `begin` and `times`, when each piece of text came, are perf_counter's seconds."""

    begin: float
    text: str = ""
    times: list[float] = field(default_factory=list)
    tokens: int = 0
    """By the usage, or else by the pieces: llama_cpp.server tells of no usage in a stream."""
    error: str | None = None
    end: float = 0.0

    @property
    def first_token(self) -> float:
        """Seconds from the request to the first piece."""
        return (self.times[0] if self.times else self.end) - self.begin

    @property
    def longest_gap(self) -> float:
        """Most seconds between two pieces."""
        return max((after - before for before, after in zip(self.times, self.times[1:], strict=False)), default=0.0)


@dataclass
class Result:
    """What one run of the loop brought; times in seconds."""

    answers: list[Answer] = field(default_factory=list)
    wall: float = 0.0

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    @property
    def errors(self) -> int:
        return sum(answer.error is not None for answer in self.answers)

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.wall

    @property
    def median_first_token(self) -> float:
        return statistics.median(answer.first_token for answer in self.answers)

    @property
    def p95_first_token(self) -> float:
        times = sorted(answer.first_token for answer in self.answers)
        return times[min(len(times) - 1, int(0.95 * len(times)))]


def session() -> aiohttp.ClientSession:
    """A client without limits of its own; connections are not kept, which llama-server closes by surprise."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))


def run_load(
    url: str, streams: int, requests: int, seed: int, system: str | None = None, words: list[str] = WORDS
) -> Result:
    """Runs `requests` prompts that no cache has seen, `MAX_TOKENS` tokens each; `system` is common to all."""
    rng = random.Random(seed)
    conversations = [_messages(rng, system, words) for _ in range(requests)]
    return asyncio.run(_run(url, streams, conversations))


async def _run(url: str, streams: int, conversations: list[Messages]) -> Result:
    result = Result()

    async def work(client: aiohttp.ClientSession) -> None:
        while conversations:
            result.answers.append(await ask(client, url, conversations.pop()))

    async with session() as client:
        begin = time.perf_counter()
        await asyncio.gather(*(work(client) for _ in range(streams)))
        result.wall = time.perf_counter() - begin
    return result


def _messages(rng: random.Random, system: str | None, words: list[str]) -> Messages:
    user = f"Story {rng.random():.6f}: tell about a {' '.join(rng.choices(words, k=20))}."
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": user}]


async def ask(
    client: aiohttp.ClientSession,
    url: str,
    messages: Messages,
    max_tokens: int = MAX_TOKENS,
    on_text: Callable[[], None] | None = None,
) -> Answer:
    """One greedy streamed answer of exactly `max_tokens` tokens; `on_text` is called with each piece."""
    body = {
        "model": "m",
        "messages": messages,
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    }
    answer = Answer(time.perf_counter())
    try:
        async with client.post(f"{url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                answer.error = await response.text()
            async for line in response.content:
                if line.startswith(b"data: {"):
                    _take(answer, json.loads(line[6:]), on_text)
    except aiohttp.ClientError as error:
        answer.error = repr(error)
    answer.end = time.perf_counter()
    answer.tokens = answer.tokens or len(answer.times)
    return answer


def _take(answer: Answer, event: dict[str, Any], on_text: Callable[[], None] | None) -> None:
    if event.get("error"):
        answer.error = str(event["error"])
    if event.get("usage"):
        answer.tokens = event["usage"]["completion_tokens"]
    if event.get("choices") and (text := event["choices"][0]["delta"].get("content")):
        answer.times.append(time.perf_counter())
        answer.text += text
        if on_text is not None:
            on_text()
