"""`/v1/embeddings`: shapes and refusals on a fake engine, numbers on the demo model."""

from __future__ import annotations

import base64
import math
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from tests.backend.server.conftest import Serve
from tests.backend.server.http.test_metrics_page import metrics
from tests.support.server.harness import MODEL, ServerProcess, chat

PATH = "/v1/embeddings"


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a b c", [3]),
        (["a b c", "d"], [3, 1]),
        ([5, 6], [2]),
        ([[5, 6, 7], [8]], [3, 1]),
    ],
)
def test_texts_and_ids(shared: ServerProcess, text: Any, tokens: list[int]) -> None:
    with shared.http() as client:
        answer = client.post(PATH, json={"input": text, "model": MODEL}).json()
    assert (answer["object"], answer["model"]) == ("list", MODEL)
    assert answer["usage"] == {"prompt_tokens": sum(tokens), "total_tokens": sum(tokens)}
    assert [each["index"] for each in answer["data"]] == list(range(len(tokens)))
    assert [each["embedding"] for each in answer["data"]] == [[count, 0.5, 0, 1] for count in tokens]


def test_the_official_client_gets_numbers_from_both_formats(shared: ServerProcess) -> None:
    with shared.openai() as client:
        for form in (openai.omit, "float"):
            answer = client.embeddings.create(model=MODEL, input=["a b"], encoding_format=form, dimensions=2)
            assert answer.data[0].embedding == [2, 0.5]
    with shared.http() as client:
        text = client.post(PATH, json={"input": "a b", "encoding_format": "base64"}).json()["data"][0]["embedding"]
    assert struct.unpack("<4f", base64.b64decode(text)) == (2, 0.5, 0, 1)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param"),
    [
        ({}, 400, "invalid_request", "input"),
        ({"input": None}, 400, "invalid_request", "input"),
        ({"input": 5}, 400, "invalid_request", "input"),
        ({"input": []}, 400, "invalid_request", "input"),
        ({"input": [1.5]}, 400, "invalid_request", "input[0]"),
        ({"input": ["a", 1]}, 400, "invalid_request", "input"),
        ({"input": ["a", [1]]}, 400, "invalid_request", "input"),
        ({"input": [-1]}, 400, "invalid_request", "input[0]"),
        ({"input": "a", "encoding_format": "hex"}, 400, "invalid_request", "encoding_format"),
        ({"input": "a", "dimensions": 0}, 400, "invalid_request", "dimensions"),
        ({"input": "a", "timeout": 0}, 400, "invalid_request", "timeout"),
        ({"input": "a", "model": "other"}, 404, "model_not_found", "model"),
        ({"input": "a " * 300}, 400, "context_length_exceeded", "input"),
    ],
)
def test_what_is_refused(shared: ServerProcess, fields: dict[str, Any], status: int, code: str, param: str) -> None:
    with shared.http() as client:
        answer = client.post(PATH, json=fields)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"].replace("[...]", "[0]")) == (status, code, param)


def test_an_engine_that_dies_of_it_is_not_asked_for_ever(serve: Serve) -> None:
    server = serve()
    with server.http() as client:
        answer = client.post(PATH, json={"input": "die"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "request_ends_engine")
        server.wait_state("ready")
        assert client.post(PATH, json={"input": "a"}).status_code == 200
    server.wait_idle()
    assert (metrics(server)("embedding_tokens_total"), server.status().restarts) == (1, 2)


def test_on_the_model(real: ServerProcess) -> None:
    texts = ["The cat sleeps on the sofa.", "A kitten naps on the couch.", "Interest rates rose by two percent. " * 12]
    with real.openai() as client:
        answer = client.embeddings.create(model="smollm2:135m", input=texts)
        vectors = [each.embedding for each in answer.data]
        assert {len(vector) for vector in vectors} == {576}
        assert [math.hypot(*vector) for vector in vectors] == pytest.approx([1] * 3, abs=1e-4)
        assert _dot(vectors[0], vectors[1]) > _dot(vectors[0], vectors[2]) + 0.05
        assert answer.usage.prompt_tokens > 80
        alone = [client.embeddings.create(model="smollm2:135m", input=text).data[0].embedding for text in texts]
        assert min(_dot(one, other) for one, other in zip(vectors, alone, strict=True)) > 0.999
        short = client.embeddings.create(model="smollm2:135m", input=texts[0], dimensions=64).data[0].embedding
        scale = math.hypot(*alone[0][:64])
        assert short == pytest.approx([value / scale for value in alone[0][:64]], abs=1e-4)
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model="smollm2:135m", input=["fine", "too long " * 400])
        assert caught.value.code == "context_length_exceeded"
        assert "input[1] has 8" in str(caught.value)
        assert "512" in str(caught.value)
        for wrong in ({"dimensions": 577}, {"input": ""}, {"input": [10**6]}):
            with pytest.raises(openai.BadRequestError):
                client.embeddings.create(**({"model": "smollm2:135m", "input": "a"} | wrong))


def test_beside_answers_on_the_model(real: ServerProcess) -> None:
    body = chat("Count to thirty.", max_tokens=24, temperature=0)
    with real.http() as client, ThreadPoolExecutor(1) as pool, real.openai() as other:
        running = pool.submit(client.post, "/v1/chat/completions", json=body)
        vectors = [
            other.embeddings.create(model="smollm2:135m", input="a short text, again and again " * 10).data[0].embedding
            for _ in range(3)
        ]
        answer = running.result()
    assert answer.json()["usage"]["completion_tokens"] == 24
    assert min(_dot(vectors[0], vector) for vector in vectors) > 0.999


def _dot(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
