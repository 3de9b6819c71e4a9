from __future__ import annotations

import asyncio

import pytest

from llama_backend.errors import EngineDied, InternalError, PromptTooLong
from llama_backend.server.engines.pending import PendingCompletion, merged
from llama_backend.wire.api import SamplingParams, Timings, Usage
from llama_backend.wire.ipc import SequenceOutput, Submit, TokenLogprob

USAGE = Usage(1, 2, 3)


def pending(number: int = 1, n: int = 1) -> PendingCompletion:
    return PendingCompletion(Submit(id=number, sampling=SamplingParams(), prompt="a", n=n))


def test_merged_has_all_text_and_what_the_last_has_besides() -> None:
    timings = Timings(predicted_n=2)
    outputs = [SequenceOutput(7, "a"), SequenceOutput(7, "b"), SequenceOutput(7, "c", "length", USAGE, timings)]
    assert merged(outputs) == [SequenceOutput(7, "abc", "length", USAGE, timings)]


@pytest.mark.parametrize("outputs", [[], [SequenceOutput(1, "x")]])
def test_merged_leaves_one_output_or_none_alone(outputs: list[SequenceOutput]) -> None:
    assert merged(outputs) is outputs


async def test_a_request_is_accepted_later() -> None:
    request = pending()
    waiting = asyncio.create_task(request.accepted())
    await asyncio.sleep(0)
    assert not waiting.done()
    request.accept(12)
    await asyncio.wait_for(waiting, 1)
    assert request.prompt_tokens == 12
    assert not request.finished


async def test_a_refusal_is_raised_where_acceptance_is_waited_for() -> None:
    request = pending()
    request.fail(PromptTooLong.of(9, 5))
    with pytest.raises(PromptTooLong):
        await request.accepted()
    assert request.finished


async def test_a_slow_reader_gets_all_that_came_at_once() -> None:
    request = pending()
    for text in ("a", "b", "c"):
        request.deliver(SequenceOutput(1, text))
    request.deliver(SequenceOutput(1, "", "stop", USAGE))
    assert [output async for output in request.outputs()] == [SequenceOutput(1, "abc", "stop", USAGE)]
    assert request.finished


async def test_outputs_end_with_the_finish_reason() -> None:
    request = pending()
    texts = []
    request.deliver(SequenceOutput(1, "a"))
    async for output in request.outputs():
        texts.append(output.text)
        if len(texts) == 1:
            request.deliver(SequenceOutput(1, "b", "stop"))
    assert texts == ["a", "b"]


async def test_what_came_before_a_failure_is_read_before_it() -> None:
    request = pending()
    outputs = request.outputs()
    request.deliver(SequenceOutput(1, "a"))
    assert (await anext(outputs)).text == "a"
    request.deliver(SequenceOutput(1, "b"))
    request.fail(EngineDied("it is gone"))
    assert (await anext(outputs)).text == "b"
    with pytest.raises(EngineDied):
        await anext(outputs)


async def test_a_failure_wakes_a_reader_that_waits() -> None:
    request = pending()
    reader = asyncio.ensure_future(anext(request.outputs()))
    await asyncio.sleep(0)
    request.fail(EngineDied("it is gone"))
    with pytest.raises(EngineDied):
        await asyncio.wait_for(reader, 1)


async def test_an_error_of_the_engine_is_raised_with_its_message() -> None:
    request = pending()
    request.deliver(SequenceOutput(1, "a", "error", message="no memory"))
    with pytest.raises(InternalError, match="no memory"):
        await anext(request.outputs())
    assert request.finished


async def test_a_request_for_several_answers_ends_with_the_last_of_them() -> None:
    request = pending(5, n=2)
    for output in (
        SequenceOutput(5, "a"),
        SequenceOutput(6, "x"),
        SequenceOutput(5, "b", "stop"),
        SequenceOutput(6, "y"),
    ):
        request.deliver(output)
    assert request.unfinished == {6}
    outputs = request.outputs()
    assert [await anext(outputs), await anext(outputs)] == [SequenceOutput(5, "ab", "stop"), SequenceOutput(6, "xy")]
    request.deliver(SequenceOutput(6, "z", "length"))
    assert [output async for output in outputs] == [SequenceOutput(6, "z", "length")]


def test_merged_has_all_logprobs() -> None:
    one, two = TokenLogprob(b"a", -1.0, []), TokenLogprob(b"b", -2.0, [])
    outputs = [SequenceOutput(1, "a", logprobs=[one]), SequenceOutput(1, "b", logprobs=[two])]
    assert merged(outputs) == [SequenceOutput(1, "ab", logprobs=[one, two])]
