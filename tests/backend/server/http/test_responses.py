"""The events are valid for the official client's own types, checked strictly."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion_choice import Logprobs

from llama_backend.server.http.responses import ResponseWriter
from llama_backend.server.streaming.sse import DONE
from llama_backend.wire.api import Timings, Usage
from llama_backend.wire.ipc import SequenceOutput, TokenLogprob

LAST = SequenceOutput(1, "", "stop", Usage(3, 2, 5, {"cached_tokens": 1}), Timings(predicted_n=2))


WHOLE = SequenceOutput(1, "text", "stop", LAST.usage, LAST.timings)


def bodies(*events: bytes) -> list[Any]:
    lines = b"".join(events).split(b"\n\n")
    assert lines.pop() == b""
    assert all(line.startswith(b"data: ") and b"\n" not in line for line in lines)
    return [msgspec.json.decode(line[6:]) for line in lines if line != DONE.strip()]


def test_the_chunks_of_a_chat_are_valid() -> None:
    writer = ResponseWriter("m", True, 5, include_usage=True)
    found = bodies(writer.opening(), writer.event(SequenceOutput(1, "Hé")), writer.event(LAST), writer.closing())
    chunks = [ChatCompletionChunk.model_validate(body) for body in found]
    assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["", "Hé", None]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    assert {chunk.id for chunk in chunks} == {writer.id}
    assert found[-2]["seed"] == 5
    assert found[-2]["timings"]["predicted_n"] == 2


def test_the_chunks_of_a_text_are_valid() -> None:
    writer = ResponseWriter("m", False, 5)
    found = bodies(writer.opening(), writer.event(SequenceOutput(1, "a")), writer.event(LAST), writer.closing())
    last = Completion.model_validate(found[-1])
    assert last.choices[0].finish_reason == "stop"
    assert all(body["object"] == "text_completion" for body in found)


def test_whole_answers_are_valid() -> None:
    chat = ChatCompletion.model_validate_json(ResponseWriter("m", True, 5).whole([WHOLE]))
    assert chat.choices[0].message.content == "text"
    text = Completion.model_validate_json(ResponseWriter("m", False, 5).whole([WHOLE]))
    assert text.choices[0].text == "text"


@pytest.mark.parametrize("chat", [True, False])
def test_text_with_the_last_piece_comes_before_the_finish_reason(chat: bool) -> None:
    writer = ResponseWriter("m", chat, 5)
    first, last = bodies(writer.event(SequenceOutput(1, "end", "length", LAST.usage)))
    assert writer.closing() == DONE
    assert first["choices"][0]["finish_reason"] is None
    assert last["choices"][0]["finish_reason"] == "length"


def test_ids_differ() -> None:
    assert ResponseWriter("m", True, 5).id != ResponseWriter("m", True, 5).id


ENTRIES = [
    TokenLogprob(b"H\xc3", -0.1, [(b"H\xc3", -0.1), (b"x", -3.0)]),
    TokenLogprob(b"\xa9", -0.2, [(b"\xa9", -0.2)]),
]


def test_the_logprobs_of_a_chat_are_valid_and_have_the_bytes_of_half_characters() -> None:
    whole = ChatCompletion.model_validate_json(
        ResponseWriter("m", True, 5).whole([SequenceOutput(1, "Hé", "stop", logprobs=ENTRIES)])
    )
    found = whole.choices[0].logprobs
    assert found is not None
    assert found.content is not None
    assert [entry.token for entry in found.content] == ["\\x48\\xc3", "\\xa9"]
    assert bytes(byte for entry in found.content for byte in entry.bytes or []).decode() == "Hé"
    assert [(top.token, top.logprob) for top in found.content[0].top_logprobs] == [("\\x48\\xc3", -0.1), ("x", -3.0)]


def test_the_logprobs_of_a_streamed_chat_stand_with_their_text() -> None:
    writer = ResponseWriter("m", True, 5)
    last = SequenceOutput(1, "!", "length", LAST.usage, logprobs=[TokenLogprob(b"!", -1.0, [])])
    found = bodies(writer.opening(), writer.event(SequenceOutput(1, "Hé", logprobs=ENTRIES)), writer.event(last))
    chunks = [ChatCompletionChunk.model_validate(body).choices[0] for body in found]
    contents = [chunk.logprobs.content if chunk.logprobs else None for chunk in chunks]
    assert [[entry.logprob for entry in content or []] for content in contents] == [[], [-0.1, -0.2], [-1.0], []]
    assert contents[0] is None


@pytest.mark.parametrize("streamed", [False, True])
def test_the_logprobs_of_a_text_tell_where_tokens_begin(streamed: bool) -> None:
    writer = ResponseWriter("m", False, 5)
    entries = [*ENTRIES, TokenLogprob(b" you", -0.3, [])]
    if streamed:
        found = bodies(*(writer.event(SequenceOutput(1, "?", logprobs=[entry])) for entry in entries))
    else:
        found = [msgspec.json.decode(writer.whole([SequenceOutput(1, "?", "stop", logprobs=entries)]))]
    parts = [Logprobs.model_validate(body["choices"][0]["logprobs"]) for body in found]
    assert [name for part in parts for name in part.tokens or []] == ["bytes:\\x48\\xc3", "bytes:\\xa9", " you"]
    assert [value for part in parts for value in part.token_logprobs or []] == [-0.1, -0.2, -0.3]
    assert [at for part in parts for at in part.text_offset or []] == [0, 1, 2]
    assert parts[0].top_logprobs is not None
    assert parts[0].top_logprobs[0] == {"bytes:\\x48\\xc3": -0.1, "x": -3.0}


def test_several_answers_have_indexes_and_seeds_and_one_usage() -> None:
    writer = ResponseWriter("m", True, 5, include_usage=True, choices=2)
    events = [writer.opening(), writer.event(SequenceOutput(8, "b"), 1), writer.event(SequenceOutput(7, "a"), 0)]
    events += [writer.event(SequenceOutput(8, "", "stop", Usage(3, 4, 7)), 1), writer.event(LAST, 0), writer.closing()]
    found = bodies(*events)
    assert [body["choices"][0]["index"] for body in found[:-1]] == [0, 1, 1, 0, 1, 0]
    assert [body["seed"] for body in found[4:6]] == [6, 5]
    assert found[-1]["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 6,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
