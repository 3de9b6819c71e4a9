"""The official client of OpenAI against the server: it is understood, and so are our errors."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.server.fake_engine import CONTEXT
from tests.support.server.harness import MODEL, ServerProcess, chat


@pytest.fixture(params=["socket", "tcp"])
def client(request: pytest.FixtureRequest, shared: ServerProcess) -> Iterator[openai.OpenAI]:
    with shared.openai() if request.param == "socket" else shared.openai_tcp() as client:
        yield client


def test_a_chat_in_one_piece(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "one two three"}])
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == MODEL
    choice = answer.choices[0]
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "one two three")
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 0


def test_a_chat_as_a_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "words=4 delay=0.01"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "w0 w1 w2 w3"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4


def test_without_stream_options_there_is_no_usage_event(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}], stream=True)
    chunks = list(stream)
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


def test_the_limit_is_a_finish_reason(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "words=9"}], max_completion_tokens=2
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content == "w0 w1"


def test_a_message_in_parts(client: openai.OpenAI) -> None:
    parts: list[openai.types.chat.ChatCompletionContentPartTextParam] = [
        {"type": "text", "text": "a "},
        {"type": "text", "text": "b"},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert answer.choices[0].message.content == "a b"


@pytest.mark.parametrize("prompt", ["x y z", ["x y z"]])
def test_a_text_completion(client: openai.OpenAI, prompt: str | list[str]) -> None:
    answer = client.completions.create(model=MODEL, prompt=prompt)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].text == "x y z"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 6


def test_a_completion_of_token_ids(client: openai.OpenAI) -> None:
    assert client.completions.create(model=MODEL, prompt=[5, 6]).choices[0].text == "t5 t6"


def test_a_text_completion_as_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.completions.create(model=MODEL, prompt="words=3 delay=0.01", stream=True))
    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert "".join(chunk.choices[0].text for chunk in chunks) == "w0 w1 w2"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    model = client.models.retrieve(MODEL)
    assert model.object == "model"
    assert model.model_extra is not None
    assert model.model_extra["meta"]["context"] == CONTEXT


def test_an_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "a"}])
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "gpt-9" in caught.value.message
    assert MODEL in caught.value.message
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_does_not_fit(client: openai.OpenAI, stream: bool) -> None:
    text = " ".join(["word"] * 300)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], stream=stream)
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "messages"
    assert "300" in caught.value.message
    assert str(CONTEXT) in caught.value.message
    assert isinstance(caught.value.body, dict)
    assert (caught.value.body["prompt_tokens"], caught.value.body["context"]) == (300, CONTEXT)


def test_a_wrong_field(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}], temperature=-1)
    assert caught.value.code == "invalid_request"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == "temperature"


def test_an_error_in_a_stream_is_raised(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIError, match="told to fail"):
        list(
            client.chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "a b error"}], stream=True
            )
        )


async def test_the_asynchronous_client(shared: ServerProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{shared.url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "words=3"}], stream=True
        )
        texts = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(texts) == "w0 w1 w2"


def test_logprobs_of_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "é one"}], logprobs=True, top_logprobs=2
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert bytes(byte for entry in found.content for byte in entry.bytes or []).decode() == "é one"
    assert [len(entry.top_logprobs) for entry in found.content] == [2] * 4


def test_logprobs_of_a_streamed_chat(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "é one"}], logprobs=True, stream=True
    )
    found = [chunk.choices[0].logprobs for chunk in stream]
    entries = [entry for part in found if part for entry in part.content or []]
    assert bytes(byte for entry in entries for byte in entry.bytes or []).decode() == "é one"
    assert all(entry.top_logprobs == [] for entry in entries)


def test_no_logprobs_unless_they_are_asked_for(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a"}])
    assert answer.choices[0].logprobs is None


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_of_a_text(client: openai.OpenAI, stream: bool) -> None:
    if stream:
        chunks = client.completions.create(model=MODEL, prompt="é one", logprobs=3, stream=True)
        parts = [chunk.choices[0].logprobs for chunk in chunks]
    else:
        parts = [client.completions.create(model=MODEL, prompt="é one", logprobs=3).choices[0].logprobs]
    tokens = [token for part in parts if part for token in part.tokens or []]
    assert tokens == ["bytes:\\xc3", "bytes:\\xa9", " ", "one"]
    assert [at for part in parts if part for at in part.text_offset or []] == [0, 0, 1, 2]
    assert [len(top) for part in parts if part for top in part.top_logprobs or []] == [3] * 4


def test_several_answers(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "a b"}], n=3)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        (index, "a b", "stop") for index in range(3)
    ]
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (2, 6, 8)


def test_several_answers_come_side_by_side(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "words=4 delay=0.02"}],
        n=2,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = list(stream)
    texts, order = ["", ""], []
    for chunk in chunks:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        order.append(choice.index)
    assert texts == ["w0 w1 w2 w3"] * 2
    assert order[2:] not in (sorted(order[2:]), sorted(order[2:], reverse=True))
    assert [chunk.choices[0].index for chunk in chunks if chunk.choices[0].finish_reason] in ([0, 1], [1, 0])
    assert last.usage is not None
    assert last.usage.completion_tokens == 8


def test_going_away_frees_all_answers(shared: ServerProcess) -> None:
    with shared.openai() as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "words=200 delay=0.05"}], n=4, stream=True
        )
        next(iter(stream))
        assert shared.status().active == 4
        stream.close()
    shared.wait_idle()


def test_a_grammar_reaches_the_engine(shared: ServerProcess) -> None:
    text = 'root ::= "yes" | "no"'
    with shared.http() as client:
        body = client.post("/v1/chat/completions", json=chat("grammar", grammar=text)).json()
    assert body["choices"][0]["message"]["content"] == text


def test_a_schema_reaches_the_engine_as_a_grammar(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "grammar"}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "colour", "schema": {"enum": ["red", "blue"]}, "strict": True},
        },
    )
    assert (answer.choices[0].message.content or "").startswith('root ::= ws ("\\"red\\"" | "\\"blue\\"") ws')


def test_a_grammar_that_is_none_is_refused_with_the_reason(client: openai.OpenAI) -> None:
    for text, reason in (("root ::= foo", "Undefined rule identifier 'foo'"), ("root ::= root", "left recursion")):
        with pytest.raises(openai.BadRequestError, match=reason) as caught:
            client.completions.create(model=MODEL, prompt="a", extra_body={"grammar": text})
        assert caught.value.param == "grammar"


def test_any_object(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "grammar"}], response_format={"type": "json_object"}
    )
    assert (answer.choices[0].message.content or "").startswith("root ::= ws")


def test_any_text(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "grammar"}], response_format={"type": "text"}
    )
    assert answer.choices[0].message.content == "none"
