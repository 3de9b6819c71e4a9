"""Random bodies never make a 500, and the server answers afterwards."""

from __future__ import annotations

import json
import random
from typing import Any

from tests.server.harness import CHAT, ServerProcess, chat

ROUNDS = 300
_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**40, 0.5, -0.0, 1e308, 5e-324),
    *(
        "",
        "a",
        "a" * 10_000,
        "\0",
        "\u2028",
        "😀",
        "²",
        "user",
        "system",
        [],
        {},
        [[]],
        [{}],
        {"": None},
        {"a": {"b": []}},
    ),
]
_PATHS = [CHAT, CHAT, "/v1/completions", "/v1/tokenize", "/v1/embeddings"]
_NAMES = [
    *("input", "encoding_format", "dimensions", "timeout"),
    *("messages", "prompt", "model", "stream", "stream_options", "n", "logprobs", "response_format", "tools"),
    *("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "repeat_last_n", "frequency_penalty", "seed"),
    *("logit_bias", "stop", "max_tokens", "max_completion_tokens", "ignore_eos", "echo", "suffix", "unknown"),
]


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.random()
    if depth < 3 and kind < 0.15:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 3 and kind < 0.3:
        return {rng.choice(["role", "content", "text", "type", "1", ""]): value(rng, depth + 1) for _ in range(3)}
    return rng.choice(_VALUES)


def body(rng: random.Random) -> bytes:
    fields = chat("a") | {"prompt": "a", "input": "a"} if rng.random() < 0.7 else {}
    fields |= {rng.choice(_NAMES): value(rng) for _ in range(rng.randrange(1, 4))}
    text = bytearray(json.dumps(fields).encode())
    for _ in range(rng.choice([0, 0, 0, 1, 3])):
        at = rng.randrange(len(text))
        text[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    return bytes(text)


def test_random_bodies(shared: ServerProcess) -> None:
    rng = random.Random(20_240_229)
    seen = set()
    with shared.http() as client:
        for _ in range(ROUNDS):
            content, path = body(rng), rng.choice(_PATHS)
            answer = client.post(path, content=content)
            seen.add(answer.status_code)
            assert answer.status_code in (200, 400, 404), (path, content, answer.text)
            if answer.status_code != 200:
                assert answer.json()["error"]["message"]
        assert client.post(CHAT, json=chat("a b")).json()["choices"][0]["message"]["content"] == "a b"
    assert {200, 400} <= seen
    shared.wait_idle()
    assert shared.status().restarts == 0


def test_random_bytes_on_a_connection(shared: ServerProcess) -> None:
    rng = random.Random(7)
    for _ in range(50):
        with shared.raw() as sock:
            sock.sendall(rng.choice([b"", b"POST ", b"GET / HTTP/1.1\r\n"]) + rng.randbytes(rng.randrange(1, 200)))
    assert shared.status().state == "ready"
