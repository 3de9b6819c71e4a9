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

    @property
    def can_share(self) -> bool:
        """Whether `share` can be used: not where a model keeps one state that sums up all tokens (Mamba)."""
        ...

    def share(self, source: int, target: int, length: int) -> None:
        """Gives the empty sequence `target` the first `length` cells of `source`: shared or, in split mode, copied."""
        ...


LEAST_SHARED = 32
"""Tokens that taking over a prefix must save; fewer are computed as quickly as a stream is copied."""


@dataclass(slots=True, eq=False)
class Slot:
    """One llama.cpp sequence id and the tokens in its KV cells. It outlives a request, for the next turn."""

    seq_id: int
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    """A number for the cell of each token; slots that share a cell have the same number."""
    busy: bool = False
    last_used: int = 0


class KVCache:
    """Slots over a pool of `cells` KV cells.

    In split mode every slot owns `cells / slots` of them, so that a pool never runs out; in unified mode
    all slots share the pool, and idle slots give way to busy ones, least recently used first.

    A prefix that another slot holds already is taken over instead of being computed again: at no cost in
    unified mode, where several sequences may have the same cell, by copying in split mode.
    """

    def __init__(self, memory: KVMemory, slots: int, cells: int, unified: bool) -> None:
        self._memory = memory
        self._cells = cells
        self._unified = unified
        self._slots = [Slot(seq_id) for seq_id in range(slots)]
        self._ticks = count(1)
        self._numbers = count()
        self._users: dict[int, int] = {}

    @property
    def used(self) -> int:
        """Cells that hold tokens, of busy and of idle slots; one that is shared counts once."""
        return len(self._users)

    @property
    def used_by_busy(self) -> int:
        """Cells that hold tokens of busy slots."""
        return len({cell for slot in self._slots if slot.busy for cell in slot.cells})

    @property
    def cells(self) -> int:
        return self._cells

    @property
    def unified(self) -> bool:
        return self._unified

    @property
    def can_share(self) -> bool:
        """Whether a slot can take over a prefix from another."""
        return self._memory.can_share

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

    def extend(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Notes that `tokens` were computed and have cells of their own."""
        slot.tokens += tokens
        self._hold(slot, [next(self._numbers) for _ in tokens])

    def shared_prefix(self, tokens: Tokens[int]) -> int:
        """How many tokens a sequence of `tokens` would have in cells that a busy slot holds anyway."""
        busy = [slot for slot in self._slots if slot.busy and self.can_share]
        return max((common_prefix(slot.tokens, tokens, len(tokens) - 1) for slot in busy), default=0)

    def adopt_prefix(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Takes over for `slot` the longest prefix of `tokens` that another slot holds, where that saves enough."""
        if not self.can_share:
            return
        limit = len(tokens) - 1
        donor = max(self._slots, key=lambda other: common_prefix(other.tokens, tokens, limit))
        length = common_prefix(donor.tokens, tokens, limit)
        if length - len(slot.tokens) < LEAST_SHARED:
            return
        self._cut(slot, 0)
        self._memory.share(donor.seq_id, slot.seq_id, length)
        slot.tokens += donor.tokens[:length]
        self._hold(slot, donor.cells[:length] if self._unified else [next(self._numbers) for _ in range(length)])

    def release(self, slot: Slot) -> None:
        """Makes a slot idle; its cells stay for the next request with the same beginning."""
        slot.busy = False
        slot.last_used = next(self._ticks)

    def clear(self, slot: Slot) -> None:
        """Frees the cells of a slot."""
        self._cut(slot, 0)

    def clear_idle(self) -> int:
        """Frees the cells of all idle slots; returns how many those were."""
        before = self.used
        for slot in self._slots:
            if not slot.busy:
                self.clear(slot)
        return before - self.used

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
        self._let_go(slot, length)

    def _hold(self, slot: Slot, cells: list[int]) -> None:
        slot.cells += cells
        for cell in cells:
            self._users[cell] = self._users.get(cell, 0) + 1

    def _let_go(self, slot: Slot, length: int) -> None:
        for cell in slot.cells[length:]:
            self._users[cell] -= 1
            if not self._users[cell]:
                del self._users[cell]
        del slot.cells[length:]


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
