"""From end to end on the demo model: what a fake engine cannot show."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import aclosing
from time import monotonic
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from llama_backend.wire.api import ChatMessage, ChatRequest
from llama_chat.backends.remote import RemoteBackend
from llama_chat.backends.tunnel import UrlRoute
from llama_chat.settings import Settings
from tests.support.flaky_proxy import FlakyProxy
from tests.support.server.harness import CHAT, ServerProcess, chat, runs, serving
from tests.support.wait import until

MODEL = "smollm2:135m"
QUESTION: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Say hello in one short sentence."}]


@pytest.fixture
def client(real: ServerProcess) -> Iterator[openai.OpenAI]:
    with real.openai() as client:
        yield client


def test_a_chat_and_its_stream_are_the_same(client: openai.OpenAI) -> None:
    settings: dict[str, Any] = {"model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 16}
    answer = client.chat.completions.create(**settings)
    content = answer.choices[0].message.content
    assert content
    stream = client.chat.completions.create(**settings, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == content
    assert answer.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens <= 16
    assert chunks[-1].usage.prompt_tokens == answer.usage.prompt_tokens > 0


def test_a_seed_makes_an_answer_again(client: openai.OpenAI) -> None:
    texts = [
        client.completions.create(model=MODEL, prompt="Once", max_tokens=12, seed=5, temperature=1).choices[0].text
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_stop_strings(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt="1, 2, 3, 4,", max_tokens=30, temperature=0, stop="7")
    assert answer.choices[0].finish_reason == "stop"
    assert "7" not in answer.choices[0].text


def test_the_count_is_what_the_answer_says(real: ServerProcess, client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=1)
    with real.http() as http:
        count = http.post("/v1/tokenize", json={"messages": QUESTION}).json()
    assert answer.usage is not None
    assert count["count"] == answer.usage.prompt_tokens
    assert (count["context"], count["fits"]) == (512, True)


def test_a_prompt_that_does_not_fit_says_both_numbers(real: ServerProcess, client: openai.OpenAI) -> None:
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": "word " * 2000}]
    with real.http() as http:
        count = http.post("/v1/tokenize", json={"messages": messages}).json()
    assert not count["fits"]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=messages)
    assert caught.value.code == "context_length_exceeded"
    assert isinstance(caught.value.body, dict)
    assert (caught.value.body["prompt_tokens"], caught.value.body["context"]) == (count["count"], 512)


@pytest.mark.parametrize("prompt", [[49_151_999], [2**31 - 1]])
def test_token_ids_that_the_model_lacks(client: openai.OpenAI, prompt: list[int]) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=MODEL, prompt=prompt)
    assert caught.value.param == "prompt"


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 100, "top_k": 0, "top_p": 0, "min_p": 1},
        {"logit_bias": {"0": -100, "999999999": 100}},
        {"seed": -(2**63), "repeat_penalty": 10, "repeat_last_n": 65_536},
        {"frequency_penalty": 2, "presence_penalty": -2, "stop": ["", "\x00"], "ignore_eos": True},
        {"max_tokens": 2**31 - 1, "stop": "e"},
        {"messages": [{"role": "assistant", "content": ""}]},
        {"messages": [{"role": "tool", "content": "<|im_end|>"}, {"role": "system", "content": "\x00"}]},
    ],
)
def test_extreme_settings_are_answered_or_refused(real: ServerProcess, fields: dict[str, Any]) -> None:
    with real.http() as http:
        answer = http.post(CHAT, json=chat("Hi", max_tokens=3) | fields)
    assert answer.status_code in (200, 400), answer.text
    assert real.status().restarts == 0


def test_whoever_goes_away_frees_the_slot(real: ServerProcess, client: openai.OpenAI) -> None:
    with client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True) as stream:
        next(iter(stream))
    real.wait_idle()


def test_a_killed_engine_is_replaced(real: ServerProcess, client: openai.OpenAI) -> None:
    pid, restarts = real.status().engine_pid, real.status().restarts
    assert pid is not None
    stream = client.completions.create(
        model=MODEL, prompt="Once upon a time", stream=True, extra_body={"ignore_eos": True}
    )
    texts = [next(stream).choices[0].text for _ in range(5)]
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(openai.APIError, match="the engine ended with signal 9"):
        texts += [chunk.choices[0].text for chunk in stream]
    begin = monotonic()
    headers = {"Prefer": "wait=30"}
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=2, extra_headers=headers)
    assert answer.choices[0].finish_reason
    assert monotonic() - begin < 10
    assert real.status().restarts == restarts + 1


def test_the_engine_of_a_killed_server_ends_by_itself(real: ServerProcess, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("killed")
    config = type(real.config)(model=MODEL, engine=real.config.engine, socket=str(folder / "s.sock"))
    with serving(config, folder) as server:
        server.wait_state("ready")
        engine = server.status().engine_pid
        assert engine is not None
        server.process.kill()
        server.process.wait()
        until(lambda: not runs(engine), what="the end of the engine")


async def test_answers_through_a_flaky_proxy_are_the_same(real: ServerProcess) -> None:
    request = ChatRequest(messages=[ChatMessage("user", "Tell me a story.")], temperature=0, max_tokens=48)

    async def ask(url: str) -> str:
        async with aclosing(RemoteBackend(Settings(), UrlRoute(url, None), "there")) as connection:
            return "".join([delta.text async for delta in connection.chat(request)])

    async with FlakyProxy(str(real.config.socket), seed=0, health=1) as good:
        whole = await ask(good.url)
    async with FlakyProxy(str(real.config.socket), seed=3, health=0) as bad:
        assert [await ask(bad.url) for _ in range(5)] == [whole] * 5
        assert bad.broken >= 5


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ('root ::= "a" [\\x00] "b"', "none of the model's tokens can come next"),
        ("root ::= <[5]> <[99999999]>", "<[99999999]> is not a token of this model"),
    ],
)
def test_a_grammar_that_leads_nowhere_is_the_fault_of_the_request(
    real: ServerProcess, grammar: str, reason: str
) -> None:
    with real.http() as client:
        answer = client.post(CHAT, json=chat(grammar=grammar, max_tokens=9))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
        assert reason in answer.json()["error"]["message"]
        stream = client.post(CHAT, json=chat(grammar=grammar, max_tokens=9, stream=True))
        assert reason in stream.text
