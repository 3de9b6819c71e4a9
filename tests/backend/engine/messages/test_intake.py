"""What becomes of a command before the engine's thread sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from llama_backend.account import Account
from llama_backend.engine.kv.slots import Slots
from llama_backend.engine.kv.state_files import StateFolder
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.kv.swap_policy import LEAST_KEPT
from llama_backend.engine.messages.inbox import Answers, Inbox, Job, Texts
from llama_backend.engine.messages.intake import Intake, Limits
from llama_backend.engine.messages.lanes import Reply, Request
from llama_backend.wire.api import ChatMessage, SamplingParams
from llama_backend.wire.ipc import Accepted, Count, Counted, Embed, Refused, Submit
from tests.support.engine.builders import prompts_of
from tests.support.engine.fakes import fake_vocab

PROMPT = list(range(1, 41))


class Desk:
    """An intake, and the parts that it works with."""

    def __init__(self, store: StateStore | None = None) -> None:
        self.inbox, self.slots = Inbox(), Slots(2)
        self.store = store or StateStore(None, 0, lambda tokens, scope: [])
        limits = Limits(context=200, embedding_tokens=20, embedding_width=8)
        self.intake = Intake(self.inbox, prompts_of(fake_vocab(), None), self.store, self.slots, limits)

    def jobs(self, request: Request) -> list[Job]:
        """What the engine is to do after a request was accepted."""
        reply = self.intake.answer(request)
        assert isinstance(reply.event, Accepted)
        assert reply.proceed is not None
        assert self.inbox.take(0) == [], "the server hears of it first"
        reply.proceed()
        return self.inbox.take(0)


def refused(reply: Reply) -> Refused:
    assert isinstance(reply.event, Refused)
    assert reply.proceed is None
    return reply.event


def test_a_request_for_several_answers_becomes_as_many_with_seeds_of_their_own() -> None:
    sampling = SamplingParams(seed=7, max_tokens=3)
    command = Submit(
        id=10, sampling=sampling, prompt=PROMPT, n=3, top_logprobs=2, store=False, account=Account("a"), scope="s"
    )
    (job,) = Desk().jobs(command)
    assert isinstance(job, Answers)
    assert job.id == 10
    assert [request.id for request in job.requests] == [10, 11, 12]
    assert [request.sampling.seed for request in job.requests] == [7, 8, 9]
    for request in job.requests:
        assert (request.tokens, request.sampling.max_tokens, request.top_logprobs) == (PROMPT, 3, 2)
        assert (request.store, request.account, request.scope) == (False, Account("a"), "s")


@pytest.mark.parametrize("is_chat", [True, False])
def test_only_the_answer_to_a_conversation_begins_a_message(is_chat: bool) -> None:
    messages = [ChatMessage("user", "Hi")] if is_chat else None
    (job,) = Desk().jobs(Submit(id=1, sampling=SamplingParams(), messages=messages, prompt=None if is_chat else "Hi"))
    assert isinstance(job, Answers)
    assert job.requests[0].is_chat is is_chat


@pytest.mark.parametrize(
    ("prompt", "code"), [([], "invalid_request"), ([5] * 200, "context_length_exceeded"), ([5000], "invalid_request")]
)
def test_a_prompt_that_cannot_be_computed_is_refused(prompt: list[int], code: str) -> None:
    desk = Desk()
    event = refused(desk.intake.answer(Submit(id=3, sampling=SamplingParams(), prompt=prompt)))
    assert (event.id, event.code) == (3, code)
    assert desk.inbox.take(0) == []


def test_counting_gives_the_engine_nothing_to_do() -> None:
    desk = Desk()
    reply = desk.intake.answer(Count(id=4, prompt="abc", return_tokens=True))
    assert isinstance(reply.event, Counted)
    assert reply.event.tokens is not None
    assert (reply.event.count, reply.event.context) == (len(reply.event.tokens), 200)
    assert reply.proceed is None


def test_texts_to_embed_are_cut_into_tokens() -> None:
    command = Embed(id=5, inputs=["ab", [1, 2, 3]], dimensions=4)
    (job,) = Desk().jobs(command)
    assert isinstance(job, Texts)
    assert job.command is command
    assert job.texts[1] == [1, 2, 3]


@pytest.mark.parametrize(
    ("inputs", "dimensions", "reason"),
    [
        (["a"], 9, "dimensions: 9 were asked for, but this model has 8"),
        ([[1], []], None, r"input\[1\]: it is empty"),
        ([[1] * 21], None, r"input\[0\] has 21 tokens, and a text to embed may have 20 at most"),
        ([[1], [5000]], None, r"input\[1\]: .*5000"),
    ],
)
def test_what_cannot_be_embedded_is_refused(inputs: list[str | list[int]], dimensions: int | None, reason: str) -> None:
    event = refused(Desk().intake.answer(Embed(id=6, inputs=inputs, dimensions=dimensions)))
    assert event.code in ("invalid_request", "context_length_exceeded")
    assert re.match(reason, event.message)


@pytest.mark.parametrize(("in_slot", "is_read"), [(0, True), (100 - LEAST_KEPT, True), (101 - LEAST_KEPT, False)])
def test_a_state_is_read_from_disk_if_it_has_enough_more_than_the_slots(
    tmp_path: Path, in_slot: int, is_read: bool
) -> None:
    store = StateStore(StateFolder(tmp_path, "0" * 32, 1 << 20), 1 << 20, lambda tokens, scope: [])
    store.open()
    desk, tokens = Desk(store), list(range(1, 101))
    store.put(tokens, "", bytes(50), durable=True, in_slot=True)
    assert store.wait_written(5)
    assert store.status.ram_bytes == 0
    desk.slots[1].tokens = tokens[:in_slot]
    desk.jobs(Submit(id=1, sampling=SamplingParams(), prompt=[*tokens, 5]))
    assert store.status.ram_bytes == (50 if is_read else 0)
    store.close(5)
