from __future__ import annotations

import asyncio

import pytest

from llama_backend.errors import EngineDied, InternalError, PromptTooLong
from llama_backend.server.engines.pending import Ticket, merged
from llama_backend.wire.api import Timings, Usage
from llama_backend.wire.ipc import SequenceOutput, TokenLogprob

USAGE = Usage(1, 2, 3)


def test_merged_has_all_text_and_what_the_last_has_besides() -> None:
    timings = Timings(predicted_n=2)
    pieces = [SequenceOutput(7, "a"), SequenceOutput(7, "b"), SequenceOutput(7, "c", "length", USAGE, timings)]
    assert merged(pieces) == [SequenceOutput(7, "abc", "length", USAGE, timings)]


@pytest.mark.parametrize("pieces", [[], [SequenceOutput(1, "x")]])
def test_merged_leaves_one_piece_or_none_alone(pieces: list[SequenceOutput]) -> None:
    assert merged(pieces) is pieces


async def test_a_ticket_is_accepted_later() -> None:
    ticket = Ticket(1)
    waiting = asyncio.create_task(ticket.accepted())
    await asyncio.sleep(0)
    assert not waiting.done()
    ticket.accept(12)
    await asyncio.wait_for(waiting, 1)
    assert ticket.prompt_tokens == 12
    assert not ticket.finished


async def test_a_refusal_is_raised_where_acceptance_is_waited_for() -> None:
    ticket = Ticket(1)
    ticket.fail(PromptTooLong.of(9, 5))
    with pytest.raises(PromptTooLong):
        await ticket.accepted()
    assert ticket.finished


async def test_a_slow_reader_gets_all_that_came_at_once() -> None:
    ticket = Ticket(1)
    for text in ("a", "b", "c"):
        ticket.deliver(SequenceOutput(1, text))
    ticket.deliver(SequenceOutput(1, "", "stop", USAGE))
    assert [piece async for piece in ticket.pieces()] == [SequenceOutput(1, "abc", "stop", USAGE)]
    assert ticket.finished


async def test_pieces_end_with_the_finish_reason() -> None:
    ticket = Ticket(1)
    texts = []
    ticket.deliver(SequenceOutput(1, "a"))
    async for piece in ticket.pieces():
        texts.append(piece.text)
        if len(texts) == 1:
            ticket.deliver(SequenceOutput(1, "b", "stop"))
    assert texts == ["a", "b"]


async def test_what_came_before_a_failure_is_read_before_it() -> None:
    ticket = Ticket(1)
    pieces = ticket.pieces()
    ticket.deliver(SequenceOutput(1, "a"))
    assert (await anext(pieces)).text == "a"
    ticket.deliver(SequenceOutput(1, "b"))
    ticket.fail(EngineDied("it is gone"))
    assert (await anext(pieces)).text == "b"
    with pytest.raises(EngineDied):
        await anext(pieces)


async def test_a_failure_wakes_a_reader_that_waits() -> None:
    ticket = Ticket(1)
    reader = asyncio.ensure_future(anext(ticket.pieces()))
    await asyncio.sleep(0)
    ticket.fail(EngineDied("it is gone"))
    with pytest.raises(EngineDied):
        await asyncio.wait_for(reader, 1)


async def test_an_error_of_the_engine_is_raised_with_its_message() -> None:
    ticket = Ticket(1)
    ticket.deliver(SequenceOutput(1, "a", "error", message="no memory"))
    with pytest.raises(InternalError, match="no memory"):
        await anext(ticket.pieces())
    assert ticket.finished


async def test_a_ticket_for_several_answers_ends_with_the_last_of_them() -> None:
    ticket = Ticket(5, n=2)
    for piece in (
        SequenceOutput(5, "a"),
        SequenceOutput(6, "x"),
        SequenceOutput(5, "b", "stop"),
        SequenceOutput(6, "y"),
    ):
        ticket.deliver(piece)
    assert ticket.unfinished == {6}
    pieces = ticket.pieces()
    assert [await anext(pieces), await anext(pieces)] == [SequenceOutput(5, "ab", "stop"), SequenceOutput(6, "xy")]
    ticket.deliver(SequenceOutput(6, "z", "length"))
    assert [piece async for piece in pieces] == [SequenceOutput(6, "z", "length")]


def test_merged_has_all_logprobs() -> None:
    one, two = TokenLogprob(b"a", -1.0, []), TokenLogprob(b"b", -2.0, [])
    pieces = [SequenceOutput(1, "a", logprobs=[one]), SequenceOutput(1, "b", logprobs=[two])]
    assert merged(pieces) == [SequenceOutput(1, "ab", logprobs=[one, two])]
