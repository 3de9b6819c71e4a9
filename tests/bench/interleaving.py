"""Conversations that begin alike, asked in any order over HTTP: is each answered from its own words?

Each conversation says which colour a door has, after a beginning that others have too, and asks for it. The first
token's log probabilities are compared with those of the same prompt computed afresh (nothing is shared with a request
that has a `cache_salt` of its own). There are more conversations than slots, so that they give way to each other, come
back from the store, and take over beginnings, all at the same time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.bench.load import WORDS, session
from tests.bench.programs import free_port, ours, running

COLOURS = ("green", "purple", "yellow", "orange", "black", "white")
MOST_DIFFERENCE = 0.5
"""Nats. Last bits differ with what else is computed (see `determinism`, where tokens changed places that were 0.26
apart): 472 requests differed by 0.30 at most. Another conversation's colour differs by more than 3.
"""
_SLOTS, _CONTEXT = 3, 640
_BEGINNINGS = 2
_MOST_AT_ONCE = 4
_COMPARED = 3
"""Of the likeliest tokens of the prompt alone."""

Logprobs = dict[str, float]


@dataclass
class Conversation:
    """What it begins with, the colour that only it names, and what was said since."""

    beginning: str
    colour: str
    story: str
    """Long enough for its state to be worth keeping beside the beginning."""
    said: list[str] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        middle = " ".join([f"The colour of the old door is {self.colour}.", self.story, *self.said])
        return f"{self.beginning} {middle} Let us say it once more: the colour of the old door is"


@dataclass
class Found:
    """What one run brought."""

    asked: int = 0
    wrong: list[str] = field(default_factory=list)
    largest: float = 0.0
    """The largest difference of a log probability, in nats."""
    cached: int = 0
    """Prompt tokens that were not computed."""
    loaded: int = 0
    """States that came back from the store."""

    def row(self, name: str) -> str:
        what = f"{self.asked} requests in turns, {len(self.wrong)} answered from others' words"
        return f"{name}: {what}; largest difference {self.largest:.2f} nats, {self.loaded} states loaded"


def interleave(model: Path, unified: bool, rounds: int, seed: int = 0, threads: int = 1) -> Found:
    """Asks for `rounds` times one to four conversations at once, and each also alone, before."""
    port = free_port()
    options = {"kv_unified": unified, "kv_cells": _SLOTS * _CONTEXT // 2 if unified else None, "speculation": False}
    program = ours(model, _SLOTS, _CONTEXT, threads, port, **options)
    with running(program, port) as url:
        return asyncio.run(_run(url, rounds, random.Random(seed)))


async def _run(url: str, rounds: int, rng: random.Random) -> Found:
    beginnings = [_words(rng, 60) for _ in range(_BEGINNINGS)]
    conversations = [Conversation(start, colour, _words(rng, 90)) for start in beginnings for colour in COLOURS]
    found, alone = Found(), dict[str, Logprobs]()
    async with session() as client:
        for _ in range(rounds):
            chosen = rng.sample(conversations, rng.randint(1, _MOST_AT_ONCE))
            for conversation in chosen:
                if rng.random() < 0.3 and len(conversation.said) < 8:
                    conversation.said.append(_words(rng, 6))
                if conversation.prompt not in alone:
                    alone[conversation.prompt] = await _alone(client, url, conversation.prompt)
            asked = [_ask(client, url, each.prompt, rng.randint(1, 12)) for each in chosen]
            for each, (logprobs, cached) in zip(chosen, await asyncio.gather(*asked), strict=True):
                _compare(found, each, alone[each.prompt], logprobs)
                found.cached += cached
        async with client.get(f"{url}/v1/status") as response:
            found.loaded = (await response.json())["kv_store"]["hits"]
    return found


def _words(rng: random.Random, count: int) -> str:
    return f"Somebody spoke of {' '.join(rng.choices(WORDS, k=count))}."


def _compare(found: Found, conversation: Conversation, alone: Logprobs, logprobs: Logprobs) -> None:
    found.asked += 1
    best = sorted(alone, key=lambda token: -alone[token])[:_COMPARED]
    difference = max(abs(alone[token] - logprobs.get(token, -100.0)) for token in best)
    found.largest = max(found.largest, difference)
    if difference > MOST_DIFFERENCE:
        said = max(logprobs, key=lambda token: logprobs[token])
        found.wrong.append(f"{conversation.colour} was asked for, {best[0]!r} is right, {said!r} came")


async def _alone(client: aiohttp.ClientSession, url: str, prompt: str) -> Logprobs:
    """The log probabilities of a prompt that is computed from its first token to its last."""
    logprobs, cached = await _ask(client, url, prompt, 1, cache_salt=random.randbytes(8).hex(), store=False)
    assert cached == 0
    return logprobs


async def _ask(
    client: aiohttp.ClientSession, url: str, prompt: str, max_tokens: int, **fields: Any
) -> tuple[Logprobs, int]:
    """The first token's likeliest alternatives, and how many prompt tokens were not computed."""
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 20} | fields
    async with client.post(f"{url}/v1/completions", json=body) as response:
        answer = await response.json()
    assert response.status == 200, answer
    return answer["choices"][0]["logprobs"]["top_logprobs"][0], answer["usage"]["prompt_tokens_details"][
        "cached_tokens"
    ]


def rows(model: Path, _: Path | None) -> Iterator[str]:
    """The section of `make bench`: 100 rounds, of about 250 requests, in each layout."""
    for unified in (False, True):
        found = interleave(model, unified, rounds=100, threads=2)
        yield found.row(f"interleaved, {'one pool' if unified else 'cells of each sequence'}")
        assert not found.wrong, found.wrong[:5]


if __name__ == "__main__":
    from llama_backend.models.installed import demo_model

    demo = demo_model()
    if demo is None:
        raise SystemExit("the demo model is not installed")
    for line in rows(demo.path, None):
        print(line, flush=True)
