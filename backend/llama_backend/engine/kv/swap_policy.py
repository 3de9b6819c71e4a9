"""Decides when the state of a slot is saved and restored: where that is quicker than computing its tokens again."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Tokens
from time import perf_counter

from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.kv.memory import Bytes, KVMemory
from llama_backend.engine.kv.slots import Slot, Slots
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.kv.stored_state import Match

LEAST_KEPT = 64
"""Tokens that saving or restoring a state must save."""


class SwapPolicy:
    """Moves states between the slots and the store where that pays; without a store nothing is saved or found."""

    def __init__(
        self, memory: KVMemory, slots: Slots, costs: CostModel, store: StateStore | None, least: int = LEAST_KEPT
    ) -> None:
        self._memory = memory
        self._slots = slots
        self._costs = costs
        self._store = store
        self._least = least

    def save_lost(self, slot: Slot, left: int, durable: bool) -> None:
        """Saves the state of a slot that will keep only its first `left` tokens, where that is worth it."""
        size = len(slot.tokens)
        if self._store is None or slot.private or not self._pays(size - left, 2 * size):
            return
        lost = size - max(left, self._held_elsewhere(slot), self._store.covered(slot.tokens, slot.scope))
        if self._pays(lost, 2 * size):
            self._save(slot, self._store, durable, in_slot=False)

    def save_idle(self) -> bool:
        """Saves the state of one idle slot on disk as well; False where no slot is worth saving."""
        if self._store is None or not self._store.durable:
            return False
        for slot in reversed(self._slots.idle):
            lost = len(slot.tokens) - self._store.covered(slot.tokens, slot.scope, durable=True)
            if not slot.private and self._pays(lost, len(slot.tokens)):
                return self._save(slot, self._store, durable=True, in_slot=True)
        return False

    def find(self, slot: Slot, tokens: Tokens[int], had: Callable[[], int]) -> Match | None:
        """The longest prefix of `tokens` in the store, where loading it pays.

        `had` says how many tokens the slot gets without it; it is called only where the store has any.
        """
        if self._store is None or self._memory.has_queued_copy(slot.seq_id):
            return None
        match = self._store.find(tokens[:-1], slot.scope)
        return match if match is not None and self._pays(match.length - had(), match.state.length) else None

    def fetch(self, match: Match) -> Bytes | None:
        """The data of a state that was found; None where its file is gone or damaged."""
        return self._store.fetch(match.state) if self._store is not None else None

    def load(self, slot: Slot, match: Match, data: Bytes) -> bool:
        """Copies a state into an empty slot; False where llama.cpp refuses it, and then the store drops it."""
        begin, length = perf_counter(), match.state.length
        if self._memory.load(slot.seq_id, data, length):
            self._costs.observe_copy(length, perf_counter() - begin)
            return True
        if self._store is not None:
            self._store.discard(match.state)
        return False

    def note_loaded(self, match: Match) -> None:
        """Tells the store that a slot has loaded a state."""
        if self._store is not None:
            self._store.used(match)

    def _save(self, slot: Slot, store: StateStore, durable: bool, in_slot: bool) -> bool:
        """Copies a slot's state into the store; False where llama.cpp cannot give it, or only after a queued copy."""
        if self._memory.has_queued_copy(slot.seq_id):
            return False
        begin = perf_counter()
        data = self._memory.dump(slot.seq_id)
        if data is None:
            return False
        self._costs.observe_copy(len(slot.tokens), perf_counter() - begin)
        store.put(slot.tokens, slot.scope, data, durable, in_slot)
        return True

    def _held_elsewhere(self, slot: Slot) -> int:
        """How many of a slot's first tokens can be taken over from another slot."""
        if not self._memory.can_share:
            return 0
        others = [other for other in self._slots.others(slot) if not other.private]
        return max((other.shares(slot.tokens, slot.scope) for other in others), default=0)

    def _pays(self, saved: int, copied: int) -> bool:
        return saved >= self._least and self._costs.copying_pays(saved, copied)
