"""Which llama.cpp sequence holds the KV cells of which tokens."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol


class KVMemory(Protocol):
    """The part of llama.cpp's memory that the cache works on."""

    def remove(self, seq_id: int, start: int) -> bool:
        """Frees the cells of a sequence from position `start` on; False where the model cannot do that."""
        ...


@dataclass(slots=True, eq=False)
class Slot:
    """One llama.cpp sequence id and the tokens in its KV cells. It outlives a request, for the next turn."""

    seq_id: int
    tokens: list[int] = field(default_factory=list)
    busy: bool = False
    last_used: int = 0


class KVCache:
    """Slots over a pool of `cells` KV cells.

    In split mode every slot owns `cells / slots` of them, so that a pool never runs out; in unified mode
    all slots share the pool, and idle slots give way to busy ones, least recently used first.
    """

    def __init__(self, memory: KVMemory, slots: int, cells: int, unified: bool) -> None:
        self._memory = memory
        self._cells = cells
        self._unified = unified
        self._slots = [Slot(seq_id) for seq_id in range(slots)]
        self._ticks = count(1)

    @property
    def used(self) -> int:
        """Cells that hold tokens, of busy and of idle slots."""
        return sum(len(slot.tokens) for slot in self._slots)

    @property
    def cells(self) -> int:
        return self._cells

    @property
    def unified(self) -> bool:
        return self._unified

    def acquire(self, tokens: Tokens[int]) -> Slot | None:
        """The idle slot that shares the longest prefix with `tokens`, cut to that prefix; None if all are busy.

        A slot that would lose more than half of its tokens by that counts as one that shares nothing, so that
        a system prompt which many conversations begin with does not make one evict the next. Of equal slots
        an empty one is taken, or else the least recently used. At least one token stays to be decoded, since
        its logits are needed.
        """
        idle = [slot for slot in self._slots if not slot.busy]
        if not idle:
            return None
        limit = len(tokens) - 1
        shared = {slot.seq_id: common_prefix(slot.tokens, tokens, limit) for slot in idle}
        slot = max(idle, key=lambda slot: _preference(slot, shared[slot.seq_id]))
        slot.busy = True
        self._cut(slot, shared[slot.seq_id])
        return slot

    def release(self, slot: Slot) -> None:
        """Makes a slot idle; its cells stay for the next request with the same beginning."""
        slot.busy = False
        slot.last_used = next(self._ticks)

    def clear(self, slot: Slot) -> None:
        """Frees the cells of a slot."""
        self._cut(slot, 0)

    def clear_idle(self) -> int:
        """Frees the cells of all idle slots; returns how many those were."""
        idle = [slot for slot in self._slots if not slot.busy]
        freed = sum(len(slot.tokens) for slot in idle)
        for slot in idle:
            self.clear(slot)
        return freed

    def make_room(self, tokens: int) -> bool:
        """Frees cells of idle slots until `tokens` more fit in the pool; False if that is not enough."""
        if not self._unified:
            return True
        idle = sorted((slot for slot in self._slots if not slot.busy), key=lambda slot: slot.last_used)
        for slot in idle:
            if self.used + tokens <= self._cells:
                break
            self.clear(slot)
        return self.used + tokens <= self._cells

    def _cut(self, slot: Slot, length: int) -> None:
        if length == len(slot.tokens):
            return
        if not self._memory.remove(slot.seq_id, length):
            self._memory.remove(slot.seq_id, 0)
            length = 0
        del slot.tokens[length:]


def _preference(slot: Slot, shared: int) -> tuple[int, bool, int]:
    kept = shared if 2 * shared >= len(slot.tokens) else 0
    return kept, not slot.tokens, -slot.last_used


def common_prefix(a: Tokens[int], b: Tokens[int], limit: int) -> int:
    """How many tokens `a` and `b` have in common at their start, at most `limit`."""
    length = min(len(a), len(b), limit)
    for index in range(length):
        if a[index] != b[index]:
            return index
    return max(length, 0)
