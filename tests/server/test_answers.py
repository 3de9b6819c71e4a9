"""The events are valid for the official client's own types, checked strictly."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from llama_backend.api import Timings, Usage
from llama_backend.ipc import Piece
from llama_backend.server.answers import DONE, Shape

LAST = Piece(1, "", "stop", Usage(3, 2, 5, {"cached_tokens": 1}), Timings(predicted_n=2))


def bodies(*events: bytes) -> list[Any]:
    lines = b"".join(events).split(b"\n\n")
    assert lines.pop() == b""
    assert all(line.startswith(b"data: ") and b"\n" not in line for line in lines)
    return [msgspec.json.decode(line[6:]) for line in lines if line != DONE.strip()]


def test_the_chunks_of_a_chat_are_valid() -> None:
    shape = Shape("m", True, 5, include_usage=True)
    found = bodies(shape.opening(), shape.event(Piece(1, "Hé")), shape.event(LAST))
    chunks = [ChatCompletionChunk.model_validate(body) for body in found]
    assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["", "Hé", None]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 5
    assert {chunk.id for chunk in chunks} == {shape.id}
    assert found[-2]["seed"] == 5
    assert found[-2]["timings"]["predicted_n"] == 2


def test_the_chunks_of_a_text_are_valid() -> None:
    shape = Shape("m", False, 5)
    found = bodies(shape.opening(), shape.event(Piece(1, "a")), shape.event(LAST))
    last = Completion.model_validate(found[-1])
    assert last.choices[0].finish_reason == "stop"
    assert all(body["object"] == "text_completion" for body in found)


def test_whole_answers_are_valid() -> None:
    chat = ChatCompletion.model_validate_json(Shape("m", True, 5).whole("text", LAST))
    assert chat.choices[0].message.content == "text"
    text = Completion.model_validate_json(Shape("m", False, 5).whole("text", LAST))
    assert text.choices[0].text == "text"


@pytest.mark.parametrize("chat", [True, False])
def test_text_with_the_last_piece_comes_before_the_finish_reason(chat: bool) -> None:
    shape = Shape("m", chat, 5)
    events = shape.event(Piece(1, "end", "length", LAST.usage))
    assert events.endswith(DONE)
    first, last = bodies(events)
    assert first["choices"][0]["finish_reason"] is None
    assert last["choices"][0]["finish_reason"] == "length"


def test_ids_differ() -> None:
    assert Shape("m", True, 5).id != Shape("m", True, 5).id
