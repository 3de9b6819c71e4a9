"""Thousands of random schedules: nobody's cells are anybody else's, and everybody gets the answer they get alone."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.kv.slots import Slot, common_prefix
from tests.support.engine.schedules import run_schedule

SCHEDULES = 2000


def schedule(seed: int) -> bytes:
    return Random(seed).randbytes(400)


def run_many(count: int) -> None:
    for seed in range(count):
        run_schedule(schedule(seed))


@settings(max_examples=SCHEDULES)
@given(st.binary(min_size=60, max_size=200))
def test_every_sequence_has_cells_of_its_own_tokens(raw: bytes) -> None:
    run_schedule(raw)


def test_the_schedules_do_everything_that_can_go_wrong_together() -> None:
    seen: Counter[str] = Counter()
    for seed in range(60):
        bench = run_schedule(schedule(seed)).bench
        memory = bench.memory
        seen["copied between buffers"] += memory.copies
        seen["shared in a pool"] += len(memory.shares) if memory.unified else 0
        seen["loaded in a pool"] += memory.loads if memory.unified else 0
        seen["loaded beside copies"] += memory.loads if memory.copies else 0
        seen["dumped"] += memory.dumps
        seen["preempted"] += bench.engine.scheduler.preemptions
        seen["found no room"] += bench.runner.no_room
        seen["drafted"] += sum(batch.drafted for batch in bench.runner.batches)
        seen["cancelled"] += sum(answer.reason == "cancelled" for answer in bench.answers.values())
    assert all(seen.values()), seen


def _adopts_then_restores(cache: KVCache, slot: Slot, tokens: list[int]) -> None:
    cache.adopt_prefix(slot, tokens)
    cache.restore(slot, tokens)


def test_a_state_loaded_over_a_queued_copy_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KVCache, "reuse", _adopts_then_restores)
    monkeypatch.setattr("tests.support.engine.fake_memory.FakeMemory.has_queued_copy", lambda self, seq_id: False)
    with pytest.raises(AssertionError, match="slot"):
        run_many(400)


def test_a_state_loaded_into_what_is_about_to_be_copied_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.engine.fake_memory.FakeMemory.has_queued_copy", lambda self, seq_id: False)
    with pytest.raises(AssertionError, match="slot"):
        run_many(1500)


def test_cells_that_another_scope_finds_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Slot, "shares", lambda slot, tokens, _, limit=None: common_prefix(slot.tokens, tokens, limit))
    with pytest.raises(AssertionError, match="slot"):
        run_many(60)
