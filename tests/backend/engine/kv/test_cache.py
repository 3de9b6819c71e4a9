"""Which slot a prompt gets, and whose cells go when the pool is full."""

from __future__ import annotations

import pytest

from llama_backend.engine.kv.cache import LEAST_SHARED, KVCache
from llama_backend.engine.kv.slots import Slot
from llama_backend.engine.kv.state_store import StateStore
from tests.support.engine.assembly import new_cache
from tests.support.engine.fakes import FakeMemory, FixedCosts


def make_cache(slots: int = 3, cells: int = 100, unified: bool = True, refuses: bool = False) -> KVCache:
    memory = FakeMemory(cells if unified else cells // slots, unified, refuses)
    return new_cache(memory, slots, cells, unified)


def fill(cache: KVCache, tokens: list[int]) -> Slot:
    """A slot that is taken and holds `tokens`, as after computing them."""
    slot = cache.acquire(tokens)
    assert slot is not None
    cache.extend(slot, tokens[len(slot.tokens) :])
    return slot


def fill_idle(cache: KVCache, *prompts: list[int]) -> list[Slot]:
    """Idle slots, the first one used least recently."""
    slots = [fill(cache, tokens) for tokens in prompts]
    for slot in slots:
        cache.release(slot)
    return slots


def test_the_longest_common_prefix_is_used_again() -> None:
    cache = make_cache()
    fill_idle(cache, [1, 2, 3, 4], [1, 2, 9], [7, 7])
    slot = cache.acquire([1, 2, 3, 4, 5])
    assert slot is not None
    assert slot.tokens == [1, 2, 3, 4]


def test_at_least_one_token_is_computed_again() -> None:
    cache = make_cache()
    fill_idle(cache, [1, 2, 3])
    slot = cache.acquire([1, 2, 3])
    assert slot is not None
    assert slot.tokens == [1, 2]


def test_a_prompt_of_one_token_reuses_nothing() -> None:
    cache = make_cache(slots=1)
    fill_idle(cache, [1])
    slot = cache.acquire([1])
    assert slot is not None
    assert slot.tokens == []


def test_without_a_common_prefix_an_empty_slot_is_taken() -> None:
    cache = make_cache()
    used = fill_idle(cache, [1, 2], [3])
    slot = cache.acquire([5, 6])
    assert slot not in used


def test_without_a_common_prefix_the_least_recently_used_slot_is_taken() -> None:
    cache = make_cache()
    oldest, *_ = fill_idle(cache, [1, 2, 3, 4, 5], [3], [4, 4])
    assert cache.acquire([8, 8]) is oldest


def test_a_conversation_is_not_cut_to_a_short_beginning_that_another_shares() -> None:
    cache = make_cache()
    system = [1, 2, 3]
    (conversation,) = fill_idle(cache, system + list(range(10, 40)))
    other = cache.acquire([*system, 50, 51])
    assert other is not conversation
    assert len(conversation.tokens) == 33


def test_a_beginning_is_still_used_where_all_slots_have_to_be_cut() -> None:
    cache = make_cache(slots=2)
    system = [1, 2, 3]
    oldest, _ = fill_idle(cache, system + list(range(10, 40)), system + list(range(40, 60)))
    slot = cache.acquire([*system, 70, 71])
    assert slot is oldest
    assert slot.tokens == system


def test_no_slot_while_all_are_busy() -> None:
    cache = make_cache(slots=1)
    slot = fill(cache, [1, 2])
    assert cache.acquire([1, 2, 3]) is None
    cache.release(slot)
    assert cache.acquire([1, 2, 3]) is slot


def test_a_model_that_cannot_remove_a_part_computes_all_again() -> None:
    cache = make_cache(slots=1, refuses=True)
    memory = FakeMemory(100, refuses_partial=True)
    cache = new_cache(memory, 1, 100, unified=True)
    (slot,) = fill_idle(cache, [1, 2, 3, 4])
    memory.add(0, 0, [1, 2, 3, 4])
    assert cache.acquire([1, 2, 9]) is slot
    assert slot.tokens == memory.cells[0] == []


def test_a_model_that_cannot_remove_a_part_keeps_what_needs_no_cut() -> None:
    memory = FakeMemory(100, refuses_partial=True)
    cache = new_cache(memory, 1, 100, unified=True)
    (slot,) = fill_idle(cache, [1, 2, 3])
    memory.add(0, 0, [1, 2, 3])
    assert cache.acquire([1, 2, 3, 4]) is slot
    assert slot.tokens == [1, 2, 3]


def test_a_model_with_one_state_for_all_tokens_takes_over_no_prefix_and_keeps_its_own() -> None:
    memory = FakeMemory(1000, refuses_partial=True)
    cache = new_cache(memory, 2, 1000, unified=True)
    beginning = list(range(100))
    for slot, size in enumerate((100, 40)):
        memory.add(slot, 0, beginning[:size])
    fill(cache, beginning)
    (own,) = fill_idle(cache, beginning[:40])
    tokens = [*beginning, 5]
    assert cache.acquire(tokens) is own
    cache.adopt_prefix(own, tokens)
    assert len(own.tokens) == 40


def test_idle_slots_give_way_least_recently_used_first() -> None:
    cache = make_cache(cells=10)
    first, second, third = fill_idle(cache, [1] * 3, [2] * 3, [3] * 3)
    assert cache.make_room(3)
    assert [slot.tokens for slot in (first, second, third)] == [[], [2] * 3, [3] * 3]
    assert cache.used == 6


def test_room_that_is_there_costs_nothing() -> None:
    cache = make_cache(cells=10)
    (slot,) = fill_idle(cache, [1] * 6)
    assert cache.make_room(4)
    assert len(slot.tokens) == 6


def test_busy_slots_never_give_way() -> None:
    cache = make_cache(cells=10)
    busy = fill(cache, [1] * 6)
    fill_idle(cache, [2] * 3)
    assert not cache.make_room(5)
    assert len(busy.tokens) == 6
    assert cache.used == 6


def test_a_split_pool_has_always_room() -> None:
    cache = make_cache(slots=2, cells=10, unified=False)
    fill(cache, [1] * 5)
    assert cache.make_room(5)


def test_all_idle_slots_can_be_cleared() -> None:
    cache = make_cache()
    busy = fill(cache, [9] * 4)
    fill_idle(cache, [1] * 3, [2] * 2)
    assert cache.evict_idle() == 5
    assert cache.evict_idle() == 0
    assert cache.used == len(busy.tokens) == 4


SYSTEM = list(range(100, 140))


@pytest.mark.parametrize("unified", [True, False])
def test_a_prefix_is_taken_over_from_a_busy_slot(unified: bool) -> None:
    memory = FakeMemory(200, unified)
    cache = new_cache(memory, slots=2, cells=400, unified=unified)
    first = cache.acquire([*SYSTEM, 1, 2])
    assert first is not None
    memory.add(first.seq_id, 0, [*SYSTEM, 1, 2])
    cache.extend(first, [*SYSTEM, 1, 2])
    second = cache.acquire([*SYSTEM, 3, 4])
    assert second is not None
    cache.adopt_prefix(second, [*SYSTEM, 3, 4])
    assert second.tokens == memory.cells[second.seq_id] == SYSTEM
    assert cache.used == (42 if unified else 82)


def test_a_shared_cell_is_free_when_the_last_of_its_slots_lets_it_go() -> None:
    memory = FakeMemory(200)
    cache = new_cache(memory, slots=2, cells=200, unified=True)
    first = fill(cache, SYSTEM)
    memory.add(first.seq_id, 0, SYSTEM)
    second = cache.acquire([*SYSTEM, 1])
    assert second is not None
    cache.adopt_prefix(second, [*SYSTEM, 1])
    cache.evict(first)
    assert cache.used == len(SYSTEM)
    cache.evict(second)
    assert cache.used == 0


def test_a_short_prefix_is_not_worth_taking_over() -> None:
    memory = FakeMemory(200)
    cache = new_cache(memory, slots=2, cells=200, unified=True)
    fill(cache, SYSTEM[:LEAST_SHARED])
    second = cache.acquire([*SYSTEM[: LEAST_SHARED - 1], 1, 2])
    assert second is not None
    cache.adopt_prefix(second, [*SYSTEM[: LEAST_SHARED - 1], 1, 2])
    assert not second.tokens
    assert not memory.shares


def test_the_beginning_that_a_template_gives_every_prompt_is_worth_taking_over() -> None:
    """About two dozen tokens of a default system prompt, which every new conversation begins with."""
    memory, beginning = FakeMemory(200), SYSTEM[:24]
    cache = new_cache(memory, slots=2, cells=200, unified=True)
    memory.add(fill(cache, beginning).seq_id, 0, beginning)
    second = cache.acquire([*beginning, 1, 2])
    assert second is not None
    cache.adopt_prefix(second, [*beginning, 1, 2])
    assert second.tokens == beginning


@pytest.mark.parametrize(("private", "saved"), [(True, 100), (False, 0)])
def test_a_state_is_saved_unless_a_slot_that_may_be_saved_holds_it_too(private: bool, saved: int) -> None:
    memory, tokens = FakeMemory(400), list(range(1, 101))
    store = StateStore(None, 1 << 20, lambda tokens, scope: [])
    cache = new_cache(memory, 2, 400, costs=FixedCosts(0), store=store)
    memory.add(fill(cache, tokens).seq_id, 0, tokens)
    second = cache.acquire([*tokens, 5], private=private)
    assert second is not None
    cache.adopt_prefix(second, [*tokens, 5])
    cache.evict(cache.slots[1 - second.seq_id])
    assert store.covered(tokens, "") == saved
