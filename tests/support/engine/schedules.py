"""Schedules: what can happen to an engine, as bytes, run on a fake model and checked after each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec

from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.speculation.draft_model import DraftModel
from tests.support.engine.fake_guesser import FakeGuesser
from tests.support.engine.fake_memory import Cell, cells_for
from tests.support.engine.fakes import Bench, copying_token, lone_answer, next_token

_SCOPES = ("", "alice", "bob")
_MOST_STEPS = 5_000


class Script:
    """Bytes, read as choices; zeros where they end."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._raw)

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1, at most 256 of them."""
        self._at += 1
        return self._raw[self._at - 1] % limit if self._at <= len(self._raw) else 0


@dataclass(frozen=True)
class Request:
    prompt: list[int]
    max_tokens: int | None
    scope: str


@dataclass
class Run:
    """An engine, the requests to it, and what it was seen to do."""

    bench: Bench
    store: StateStore
    context: int
    requests: dict[int, Request] = field(default_factory=dict)
    cancelled: set[int] = field(default_factory=set)

    def submit(self, script: Script) -> None:
        """A new conversation that may begin as others do, or one that goes on from an earlier answer."""
        number, going_on = len(self.requests), script.below(3) > 0
        scope, base = _SCOPES[script.below(3)], self._base(script, going_on)
        shared = base[: script.below(len(base) + 1) if script.below(2) else len(base)]
        tail = [1 + script.below(3) for _ in range(1 + script.below(5))]
        prompt = (shared + tail)[: self.context - 1]
        self.requests[number] = Request(prompt, (None, 1 + script.below(40))[script.below(2)], scope)
        self.bench.submit(number, prompt, self.requests[number].max_tokens, store=script.below(5) > 0, scope=scope)

    def _base(self, script: Script, going_on: bool) -> list[int]:
        if going_on and self.requests:
            earlier = self.requests[script.below(len(self.requests))]
            said = [int(word) for word in self.bench.answers[script.below(len(self.requests))].text.split()]
            return earlier.prompt + said
        return Random(script.below(2)).choices(range(1, 1000), k=self.context // 2)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.bench.step()
            self.check_cells()

    def cancel(self, script: Script) -> None:
        if self.requests:
            number = script.below(len(self.requests))
            self.cancelled.add(number)
            self.bench.engine.cancel(number)

    def check_cells(self) -> None:
        """Each slot's cells were computed from its own tokens, of its own scope, and from nobody else's."""
        memory = self.bench.memory.settled
        for slot in self.bench.cache.slots:
            assert memory.cells_of(slot.seq_id) == cells_for(slot.tokens, slot.scope), f"slot {slot.seq_id}"
        for sequence in self.bench.engine.scheduler.running:
            assert sequence.slot is not None
            assert sequence.slot.scope == sequence.scope
            assert sequence.slot.tokens == sequence.tokens[: sequence.computed]

    def check_states(self) -> None:
        """Each state that is kept is of its own tokens and scope."""
        for request in self.requests.values():
            for scope in _SCOPES:
                match = self.store.find(request.prompt, scope)
                if match is not None and match.state.data is not None:
                    cells = msgspec.msgpack.decode(match.state.data, type=list[Cell])
                    assert cells == cells_for(match.state.ids, scope)

    def check_answers(self) -> None:
        """Everybody got the answer that they get alone."""
        for number, request in self.requests.items():
            answer = self.bench.answers[number]
            text, reason = lone_answer(request.prompt, request.max_tokens, self.context, self.bench.runner.model)
            if answer.reason == "cancelled":
                assert number in self.cancelled
                assert text.startswith(answer.text)
            else:
                assert (answer.text, answer.reason) == (text, reason), f"request {number}"


def run_schedule(raw: bytes) -> Run:
    """Sets up an engine and drives it as the bytes say; raises AssertionError where anything is wrong."""
    script = Script(raw)
    run = _set_up(script)
    actions: list[Callable[[], object]] = [
        *[lambda: run.submit(script)] * 4,
        *[lambda: run.step(1 + script.below(6))] * 4,
        lambda: run.cancel(script),
        run.bench.engine.save_idle,
        run.bench.engine.clear_kv_states,
        run.bench.engine.scheduler.shrink,
    ]
    while script.has_more and len(run.requests) < 60:
        actions[script.below(len(actions))]()
        run.check_cells()
    for _ in range(_MOST_STEPS):
        if not run.bench.engine.busy:
            break
        run.step()
    assert not run.bench.engine.busy, "it does not come to an end"
    run.step()  # brings the ends of those that were cancelled last
    run.check_states()
    run.check_answers()
    return run


def _set_up(script: Script) -> Run:
    unified, slots, context = script.below(2) == 1, 1 + script.below(5), 24 + script.below(70)
    speculates, drafts = script.below(3) == 0, script.below(2) == 0
    refuses_partial = script.below(8) == 0
    model = copying_token if speculates else next_token
    store = StateStore(None, (0, 2_000, 1 << 20)[script.below(3)], lambda tokens, scope: [], only_whole=refuses_partial)
    bench = Bench(
        slots=slots,
        cells=context + script.below(2 * context) if unified else slots * context,
        context=context,
        unified=unified,
        refuses_partial=refuses_partial,
        store=store,
        n_batch=max(8, slots) + script.below(50),
        failures=Random(script.below(256)) if script.below(3) == 0 else None,
        model=model,
        token_part=0.05 * script.below(4) if speculates else None,
        least_kept=2 + script.below(8),
        draft_model=DraftModel(FakeGuesser(), slots) if speculates and drafts and not refuses_partial else None,
    )
    return Run(bench, store, context)
