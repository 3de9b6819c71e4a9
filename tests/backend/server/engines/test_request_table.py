"""The table of requests by itself: numbers, hand-over, and the hunt for the request that engines die on."""

from __future__ import annotations

import pytest

from llama_backend.crash_notes import Suspects
from llama_backend.errors import BackendError, EngineDied, InvalidRequest, RequestEndsEngine, Unavailable
from llama_backend.server.engines.pending import EngineRequest, PendingCompletion, PendingCount, PendingEmbedding
from llama_backend.server.engines.request_table import RequestTable
from llama_backend.wire.api import SamplingParams
from llama_backend.wire.ipc import (
    Accepted,
    Cancel,
    Count,
    Counted,
    Embed,
    Embedded,
    Refused,
    SequenceOutput,
    StepDone,
    Submit,
)

Sent = list[EngineRequest | Cancel]


def completion(n: int = 1) -> PendingCompletion:
    return PendingCompletion(Submit(sampling=SamplingParams(), prompt="a", n=n))


def step(*outputs: SequenceOutput) -> StepDone:
    return StepDone(outputs=list(outputs), running=1, waiting=0)


def numbers(sent: Sent) -> list[int]:
    return [request.id for request in sent if not isinstance(request, Cancel)]


def at_work(*pending: PendingCompletion) -> Suspects:
    return Suspects(batch=frozenset(each.number for each in pending))


async def error_of(pending: PendingCompletion) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await pending.whole()
    return caught.value


async def test_each_answer_has_a_number_of_its_own_which_the_engine_gets() -> None:
    table, sent = RequestTable(), Sent()
    table.engine_ready(sent.append)
    with table.opened(completion(n=3)) as first, table.opened(completion()) as second:
        assert (list(first.numbers), list(second.numbers)) == ([1, 2, 3], [4])
        assert [request.id for request in sent] == [1, 4]
        assert len(table) == 4
    assert len(table) == 0


async def test_what_waits_for_an_engine_is_handed_over_once_there_is_one() -> None:
    table, sent = RequestTable(), Sent()
    with table.opened(completion()), table.opened(completion()):
        table.engine_ready(sent.append)
        assert numbers(sent) == [1, 2]


async def test_closing_cancels_the_answers_that_have_not_ended() -> None:
    table, sent = RequestTable(), Sent()
    table.engine_ready(sent.append)
    with table.opened(completion(n=2)):
        table.take(step(SequenceOutput(1, "a", "stop")))
    assert sent[1:] == [Cancel(2)]


async def test_each_kind_of_request_gets_what_is_for_it() -> None:
    table = RequestTable()
    table.engine_ready(lambda request: None)
    count, embedding = PendingCount(Count(prompt="a b")), PendingEmbedding(Embed(inputs=["a", "b"]))
    with table.opened(completion()) as pending, table.opened(count), table.opened(embedding):
        table.take(Accepted(1, 5))
        table.take(step(SequenceOutput(1, "hello", "stop")))
        table.take(Counted(id=2, count=2, context=9))
        for index in (1, 0):
            table.take(Embedded(id=3, index=index, tokens=1, data=b"%d" % index))
        assert pending.prompt_tokens == 5
        assert [output.text for output in await pending.whole()] == ["hello"]
        assert (await count.counted()).count == 2
        assert [vector.data for vector in await embedding.vectors()] == [b"0", b"1"]


async def test_a_refusal_has_its_code_and_its_facts() -> None:
    table = RequestTable()
    with table.opened(completion()) as pending:
        table.take(Refused(id=1, code="context_length_exceeded", message="too long", prompt_tokens=9, context=5))
        error = await error_of(pending)
    assert (error.code, error.details) == ("context_length_exceeded", {"prompt_tokens": 9, "context": 5})


async def test_suspects_are_tried_one_after_another_and_only_the_one_to_blame_fails() -> None:
    table, sent = RequestTable(), Sent()
    table.engine_ready(sent.append)
    with table.opened(completion()) as bad, table.opened(completion()) as good, table.opened(completion()) as waiting:
        table.engine_died(at_work(bad, good), "the engine ended")
        sent.clear()
        table.engine_ready(sent.append)
        assert numbers(sent) == [waiting.number, bad.number]
        table.engine_died(at_work(bad), "the engine ended")
        assert isinstance(await error_of(bad), RequestEndsEngine)
        sent.clear()
        table.engine_ready(sent.append)
        assert numbers(sent) == [waiting.number, good.number]


async def test_the_next_suspect_is_tried_when_the_one_before_has_ended() -> None:
    table, sent = RequestTable(), Sent()
    table.engine_ready(sent.append)
    with table.opened(completion()) as one, table.opened(completion()) as two:
        table.engine_died(at_work(one, two), "the engine ended")
        sent.clear()
        table.engine_ready(sent.append)
        assert numbers(sent) == [1]
        table.take(step(SequenceOutput(1, "a", "stop")))
        assert numbers(sent) == [1, 2]


async def test_what_a_client_has_read_is_not_computed_again() -> None:
    table = RequestTable()
    table.engine_ready(lambda request: None)
    with table.opened(completion()) as read, table.opened(completion()) as unread:
        table.take(step(SequenceOutput(1, "a"), SequenceOutput(2, "a")))
        await anext(read.outputs())
        table.engine_died(Suspects(), "the engine ended")
        assert isinstance(await error_of(read), EngineDied)
        assert not unread.finished


async def test_whose_grammar_was_at_work_is_told_so() -> None:
    table = RequestTable()
    with table.opened(completion()) as pending:
        table.engine_died(Suspects(grammar=pending.number), "the engine ended")
        error = await error_of(pending)
    assert isinstance(error, InvalidRequest)
    assert error.details["param"] == "grammar"


async def test_all_fail_where_there_will_be_no_engine() -> None:
    table = RequestTable()
    with table.opened(completion()) as pending:
        table.fail_all(Unavailable("it ends"))
        assert isinstance(await error_of(pending), Unavailable)
