"""Which llama.cpp sequence holds the KV cells of which tokens.

The words for what happens to the cells of a slot:

- to *release* a slot is to make it idle when its request has ended; its cells stay for the next turn;
- to *save* it is to copy its state into the store, and to *restore* it is to load one from there;
- to *evict* it is to free its cells for others; it is saved first, where that is worth it;
- to *free* cells is to give them up without saving them;
- to *clear* KV states, as a user may ask for, is to free all cells that no request uses, without saving them.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from itertools import count

from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.kv.cell_pool import CellPool
from llama_backend.engine.kv.memory import Bytes, KVMemory
from llama_backend.engine.kv.slots import Slot, Slots, choose_slot
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.kv.stored_state import Match
from llama_backend.engine.kv.swap_policy import LEAST_KEPT, SwapPolicy

LEAST_SHARED = 12
"""Tokens that taking over a part of a prompt must save: computing fewer is as quick as copying a stream."""


class KVCache:
    """Slots over a pool of `cells` KV cells.

    In split mode every slot owns `cells / slots` of them, so that a pool never runs out; in unified mode
    all slots share the pool, and idle slots give way to busy ones, least recently used first.

    A prefix that another slot already holds is taken over instead of being computed again: without any copying in
    unified mode, where several sequences can share a cell, and by copying in split mode.

    Evicted cells are saved in the store and restored from there, where that is quicker than computing them again.

    Requests only find what was computed for their own scope (see `scope_of`).
    """

    def __init__(
        self,
        memory: KVMemory,
        slots: Slots,
        cells: int,
        unified: bool,
        costs: CostModel,
        store: StateStore | None = None,
        least_kept: int = LEAST_KEPT,
    ) -> None:
        """`least_kept` is how many tokens saving or restoring a state must save."""
        self.slots = slots
        self.unified = unified
        self._memory = memory
        self._pool = CellPool(cells)
        self._swap = SwapPolicy(memory, slots, costs, store, least_kept)
        self._ticks = count(1)

    @property
    def cells(self) -> int:
        """All cells of the pool."""
        return self._pool.size

    @property
    def used(self) -> int:
        """Cells that hold tokens, of busy and idle slots; a shared one counts once."""
        return self._pool.used

    @property
    def free(self) -> int:
        """Cells that hold nothing."""
        return self._pool.free

    @property
    def used_by_busy(self) -> int:
        """Cells that hold tokens of busy slots."""
        return len({cell for slot in self.slots.busy for cell in slot.cells})

    @property
    def shared(self) -> int:
        """Cells that are saved because slots share them."""
        return sum(len(slot.cells) for slot in self.slots) - self._pool.used

    @property
    def can_share(self) -> bool:
        """Whether a slot can take over a prefix from another."""
        return self._memory.can_share

    def acquire(self, tokens: Tokens[int], scope: str = "", private: bool = False) -> Slot | None:
        """The idle slot that `choose_slot` prefers, cut to the prefix that it shares; None if there is none now.

        A slot that a queued copy reads or writes is only given out after the next step, which runs the copy.
        """
        idle = [slot for slot in self.slots if not slot.busy]
        if len(idle) < len(self.slots):
            idle = [slot for slot in idle if not self._memory.has_queued_copy(slot.seq_id)]
        if not idle:
            return None
        slot, shared = choose_slot(idle, tokens, scope)
        slot.busy = True
        if private:
            self._swap.save_lost(slot, left=0, durable=True)
        self._evict_from(slot, shared)
        slot.scope, slot.private = scope, private
        return slot

    def reuse(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Gives a slot the longest prefix of `tokens` that was computed before, where that saves enough.

        Either a state is loaded from the store, where that saves more, or the prefix of another slot is taken over. Not
        both: the copy of the prefix, which may run later, would overwrite the state.
        """
        if not self.restore(slot, tokens):
            self.adopt_prefix(slot, tokens)

    def extend(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Notes that `tokens` were computed and have cells of their own."""
        slot.tokens += tokens
        slot.cells += self._pool.take(len(tokens))

    def free_rejected(self, slot: Slot) -> None:
        """Frees the cells of drafted tokens that were rejected, behind those that `extend` has noted."""
        self._memory.remove(slot.seq_id, len(slot.tokens))

    def shared_prefix(self, tokens: Tokens[int], scope: str = "") -> int:
        """How many tokens a sequence of `tokens` could take over from busy slots."""
        busy = self.slots.busy if self.can_share else []
        return max((slot.shares(tokens, scope, len(tokens) - 1) for slot in busy), default=0)

    def least_shared(self, is_whole: bool) -> int:
        """How many tokens taking over a prefix must save; `is_whole` says that it is the whole prompt."""
        return 1 if is_whole and self.unified else LEAST_SHARED

    def adopt_prefix(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Takes over for `slot` the longest prefix of `tokens` that another slot holds, where that saves enough."""
        donor, length = self._donor(slot, tokens)
        if donor is None:
            return
        self._free_from(slot, 0)
        self._memory.share(donor.seq_id, slot.seq_id, length)
        slot.tokens += donor.tokens[:length]
        if self.unified:
            slot.cells += donor.cells[:length]
            self._pool.share(slot.cells)
        else:
            slot.cells += self._pool.take(length)

    def restore(self, slot: Slot, tokens: Tokens[int]) -> bool:
        """Loads the longest prefix of `tokens` in the store, where that saves more than taking one over."""
        while (match := self._swap.find(slot, tokens, lambda: self._donor(slot, tokens)[1])) is not None:
            if not self._has_room(match.state.length):
                return False
            data = self._swap.fetch(match)
            if data is not None:
                return self._load(slot, match, data)
        return False

    def release(self, slot: Slot) -> None:
        """Makes a slot idle; its cells stay for the next request with the same beginning."""
        slot.busy = False
        slot.last_used = next(self._ticks)

    def save_idle(self) -> bool:
        """Saves the state of one idle slot on disk, if one is worth it; the slot keeps its cells."""
        return self._swap.save_idle()

    def evict(self, slot: Slot, durable: bool = True) -> None:
        """Frees all cells of a slot; `durable` says whether its state may be saved on disk as well."""
        self._evict_from(slot, 0, durable)

    def evict_idle(self) -> int:
        """Frees the cells of all idle slots; returns how many those were."""
        before = self.used
        for slot in self.slots.idle:
            self.evict(slot)
        return before - self.used

    def make_room(self, tokens: int) -> bool:
        """Evicts idle slots until `tokens` more fit in the pool; False if that is not enough."""
        if not self.unified or tokens <= self._pool.free:
            return True
        for slot in self.slots.idle:
            self.evict(slot)
            if tokens <= self._pool.free:
                return True
        return False

    def clear_kv_states(self) -> None:
        """Frees the cells of all idle slots without saving them; those of busy slots will not be saved either."""
        for slot in self.slots:
            if slot.busy:
                slot.private = True
            else:
                self._free_from(slot, 0)

    def _donor(self, slot: Slot, tokens: Tokens[int]) -> tuple[Slot | None, int]:
        """The slot with the longest prefix of `tokens` and its length; None and the own length if that saves little."""
        limit = len(tokens) - 1
        others = self.slots.others(slot) if self.can_share else []
        donor = max(others, key=lambda other: other.shares(tokens, slot.scope, limit), default=None)
        length = donor.shares(tokens, slot.scope, limit) if donor else 0
        pays = length - len(slot.tokens) >= self.least_shared(length == limit)
        return (donor, length) if pays else (None, len(slot.tokens))

    def _load(self, slot: Slot, match: Match, data: Bytes) -> bool:
        """Replaces a slot's cells by a state, and frees those behind the tokens that were looked for."""
        self._free_from(slot, 0)
        if not self._swap.load(slot, match, data):
            return False
        self.extend(slot, match.state.ids)
        self._free_from(slot, match.length)
        self._swap.note_loaded(match)
        return True

    def _has_room(self, tokens: int) -> bool:
        """Evicts idle slots until `tokens` more fit; False, without evicting any, where busy slots leave no room."""
        return not self.unified or (self.used_by_busy + tokens <= self.cells and self.make_room(tokens))

    def _evict_from(self, slot: Slot, length: int, durable: bool = True) -> None:
        """Frees the cells from position `length` on; the state is saved first, if that is worth it."""
        self._swap.save_lost(slot, length, durable)
        self._free_from(slot, length)

    def _free_from(self, slot: Slot, length: int) -> None:
        """Frees the cells from position `length` on, or all of them where the model cannot remove a part."""
        if length == len(slot.tokens):
            return
        if not self._memory.remove(slot.seq_id, length):
            self._memory.remove(slot.seq_id, 0)
            length = 0
        self._pool.give_back(slot.cells[length:])
        del slot.tokens[length:], slot.cells[length:]
