"""Slots by what they hold, and what tokens have in common."""

from __future__ import annotations

from typing import Any

import pytest

from llama_backend.engine.kv.slots import Slots, common_prefix


@pytest.mark.parametrize(
    ("a", "b", "limit", "length"),
    [
        ([], [], 5, 0),
        ([1, 2, 3], [1, 2, 3], 5, 3),
        ([1, 2, 3], [1, 2, 3], 2, 2),
        ([1, 2, 3], [1, 9, 3], 5, 1),
        ([1, 2], [1, 2, 3], 5, 2),
        ([1], [], -1, 0),
    ],
)
def test_common_prefix(a: list[int], b: list[int], limit: int, length: int) -> None:
    assert common_prefix(a, b, limit) == length


def test_the_idle_are_ordered_by_when_they_were_used() -> None:
    slots = Slots(4)
    for slot, last_used in zip(slots, (3, 1, 2, 0), strict=True):
        slot.last_used = last_used
    slots[3].busy = True
    assert [slot.seq_id for slot in slots.idle] == [1, 2, 0]
    assert slots.busy == [slots[3]]
    assert slots.others(slots[2]) == [slots[0], slots[1], slots[3]]


def test_only_slots_of_the_same_scope_hold_anything_for_a_prompt() -> None:
    slots = Slots(3)
    for slot, tokens, scope in zip(slots, ([1, 2, 3, 4], [1, 2], [1, 2, 3]), ("alice", "", ""), strict=True):
        slot.tokens, slot.scope = tokens, scope
    assert slots.held([1, 2, 3, 4, 5], "") == 3
    assert slots.held([1, 2, 3, 4, 5], "alice") == 4
    assert slots.held([1, 2, 3, 4, 5], "bob") == 0


class ShrinkingTokens(list[int]):
    """Tokens that the engine's thread cuts as soon as another thread looks at one of them."""

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        self.clear()
        return found


def test_a_slot_that_is_cut_meanwhile_does_not_disturb_who_asks() -> None:
    slots = Slots(1)
    slots[0].tokens = ShrinkingTokens([1, 2, 3])
    assert slots.held([1, 2, 3, 4], "") == 3
