"""Which llama.cpp sequence holds the KV cells of which tokens."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from itertools import count
from time import perf_counter

from llama_backend.engine.kv.memory import Bytes, KVMemory
from llama_backend.engine.kv.state_store import KVStore, Match

LEAST_SHARED = 12
"""Tokens that taking over a part of a prompt must save: fewer are computed as quickly as a stream is copied."""
LEAST_KEPT = 64
"""Tokens that keeping or loading a state must save."""
_TOKEN_SECONDS = 1e-3
"""What computing a token takes, until it is known."""
_COPY_SECONDS = 1.5e-5
"""What copying the cells of a token takes, until it is known."""
_SMOOTH = 0.3


@dataclass(slots=True, eq=False)
class Slot:
    """One llama.cpp sequence id and the tokens in its KV cells. It outlives a request, for the next turn."""

    seq_id: int
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    """A number for the cell of each token; slots that share a cell have the same number."""
    busy: bool = False
    last_used: int = 0
    scope: str = ""
    """Who may use its tokens: requests of the same scope."""
    private: bool = False
    """Its tokens are of a request that must leave no trace: they are not kept anywhere else."""

    def shares(self, tokens: Tokens[int], scope: str, limit: int | None = None) -> int:
        """How many tokens at the beginning of `tokens` a request of `scope` finds here, at most `limit`."""
        return common_prefix(self.tokens, tokens, limit) if self.scope == scope else 0


class KVCache:
    """Slots over a pool of `cells` KV cells.

    In split mode every slot owns `cells / slots` of them, so that a pool never runs out; in unified mode
    all slots share the pool, and idle slots give way to busy ones, least recently used first.

    A prefix that another slot holds already is taken over instead of being computed again: at no cost in
    unified mode, where several sequences may have the same cell, by copying in split mode.

    Cells that give way are kept in the store, where computing them again would take longer, and come back from
    there.

    What was computed for one scope (an account, or what a request names as `cache_salt`) is found by no other.
    """

    def __init__(self, memory: KVMemory, slots: int, cells: int, unified: bool, store: KVStore | None = None) -> None:
        self._memory = memory
        self._store = store
        if store is not None:
            store.held = self.held
        self.token_seconds = _TOKEN_SECONDS
        """What computing a token takes; who knows better sets it."""
        self._copy_seconds = _COPY_SECONDS
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
    def free(self) -> int:
        """Cells that hold nothing."""
        return self._cells - self.used

    @property
    def used_by_busy(self) -> int:
        """Cells that hold tokens of busy slots."""
        return len({cell for slot in self._slots if slot.busy for cell in slot.cells})

    @property
    def shared(self) -> int:
        """Cells that are saved since slots share them."""
        return sum(len(slot.cells) for slot in self._slots) - self.used

    @property
    def slots(self) -> Tokens[Slot]:
        """All slots, by their sequence ids."""
        return self._slots

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

    def acquire(self, tokens: Tokens[int], scope: str = "", private: bool = False) -> Slot | None:
        """The idle slot that shares the longest prefix with `tokens`, cut to that prefix; None if there is none now.

        A slot that would lose more than half of its tokens by that counts as one that shares nothing, so that
        a system prompt which many conversations begin with does not make one evict the next. Of equal slots
        an empty one is taken, or else the least recently used. At least one token stays to be decoded, since
        its logits are needed. A slot that a queued copy reads or writes is for somebody else after the next step,
        which runs the copy.
        """
        idle = [slot for slot in self._slots if not slot.busy]
        if len(idle) < len(self._slots):
            idle = [slot for slot in idle if not self._memory.has_queued_copy(slot.seq_id)]
        if not idle:
            return None
        shared = {slot.seq_id: slot.shares(tokens, scope, len(tokens) - 1) for slot in idle}
        slot = max(idle, key=lambda slot: _preference(slot, shared[slot.seq_id]))
        slot.busy = True
        if private:
            self._keep(slot, left=0)
        self._cut(slot, shared[slot.seq_id])
        slot.scope, slot.private = scope, private
        return slot

    def reuse(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Gives a slot the longest prefix of `tokens` that was computed before, where that saves enough.

        A state from the store is loaded where it saves more than what another slot holds, and nothing is taken over
        then: the copy, which may run later, would overwrite it.
        """
        if not self._restore(slot, tokens):
            self.adopt_prefix(slot, tokens)

    def extend(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Notes that `tokens` were computed and have cells of their own."""
        slot.tokens += tokens
        self._hold(slot, [next(self._numbers) for _ in tokens])

    def settle(self, slot: Slot) -> None:
        """Frees the cells behind those that were noted: of drafted tokens that did not come."""
        self._memory.remove(slot.seq_id, len(slot.tokens))

    def shared_prefix(self, tokens: Tokens[int], scope: str = "") -> int:
        """How many tokens a sequence of `tokens` would have in cells that a busy slot holds anyway."""
        busy = [slot for slot in self._slots if slot.busy and self.can_share]
        return max((slot.shares(tokens, scope, len(tokens) - 1) for slot in busy), default=0)

    def least_shared(self, is_whole: bool) -> int:
        """Tokens that taking over a prefix must save, where it is the whole prompt or a part of it."""
        return 1 if is_whole and self._unified else LEAST_SHARED

    def adopt_prefix(self, slot: Slot, tokens: Tokens[int]) -> None:
        """Takes over for `slot` the longest prefix of `tokens` that another slot holds, where that saves enough."""
        donor, length = self._donor(slot, tokens)
        if donor is None:
            return
        self._drop(slot, 0)
        self._memory.share(donor.seq_id, slot.seq_id, length)
        slot.tokens += donor.tokens[:length]
        self._hold(slot, donor.cells[:length] if self._unified else [next(self._numbers) for _ in range(length)])

    def _donor(self, slot: Slot, tokens: Tokens[int]) -> tuple[Slot | None, int]:
        """The slot that a prefix of `tokens` is best taken over from, and its length; None where none saves enough."""
        limit = len(tokens) - 1
        others = [other for other in self._slots if other is not slot] if self.can_share else []
        donor = max(others, key=lambda other: other.shares(tokens, slot.scope, limit), default=None)
        length = donor.shares(tokens, slot.scope, limit) if donor else 0
        pays = length - len(slot.tokens) >= self.least_shared(length == limit)
        return (donor, length) if pays else (None, len(slot.tokens))

    def release(self, slot: Slot) -> None:
        """Makes a slot idle; its cells stay for the next request with the same beginning."""
        slot.busy = False
        slot.last_used = next(self._ticks)

    def keep_idle(self) -> bool:
        """Puts one idle slot's state on disk, if there is one that is not; it stays in the slot as well."""
        if self._store is None or not self._store.durable:
            return False
        for slot in sorted(self._slots, key=lambda slot: -slot.last_used):
            lost = len(slot.tokens) - self._store.covered(slot.tokens, slot.scope, durable=True)
            if not slot.busy and not slot.private and self._pays(lost, len(slot.tokens)):
                return self._put(slot, durable=True, spare=True)
        return False

    def held(self, tokens: Tokens[int], scope: str) -> int:
        """How many tokens at the beginning of `tokens` any slot holds; a guess where another thread asks."""
        return max((slot.shares(tokens, scope) for slot in self._slots), default=0)

    def clear(self, slot: Slot, durable: bool = True) -> None:
        """Frees the cells of a slot; `durable` is whether its tokens may be asked for in another process."""
        self._cut(slot, 0, durable)

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

    def clear_kv_states(self) -> None:
        """Frees the cells of all idle slots and keeps them nowhere; nor will those of busy slots be kept."""
        for slot in self._slots:
            if slot.busy:
                slot.private = True
            else:
                self._drop(slot, 0)

    def _cut(self, slot: Slot, length: int, durable: bool = True) -> None:
        """Frees the cells from position `length` on; they are kept in the store if that is worth it."""
        self._keep(slot, length, durable)
        self._drop(slot, length)

    def _keep(self, slot: Slot, left: int, durable: bool = True) -> None:
        """Puts a slot's state into the store, of whose tokens only `left` will stay there, where that is worth it."""
        if self._store is None or slot.private or not self._pays(len(slot.tokens) - left, 2 * len(slot.tokens)):
            return
        lost = len(slot.tokens) - max(left, self._held_elsewhere(slot), self._store.covered(slot.tokens, slot.scope))
        if self._pays(lost, 2 * len(slot.tokens)):
            self._put(slot, durable, spare=False)

    def _held_elsewhere(self, slot: Slot) -> int:
        if not self.can_share:
            return 0
        others = [other for other in self._slots if other is not slot and not other.private]
        return max((other.shares(slot.tokens, slot.scope) for other in others), default=0)

    def _put(self, slot: Slot, durable: bool, spare: bool) -> bool:
        if self._store is None or self._memory.has_queued_copy(slot.seq_id):
            return False
        begin = perf_counter()
        data = self._memory.dump(slot.seq_id)
        if data is None:
            return False
        self._observe_copy(len(slot.tokens), perf_counter() - begin)
        self._store.put(slot.tokens, slot.scope, data, durable, spare)
        return True

    def _restore(self, slot: Slot, tokens: Tokens[int]) -> bool:
        """Loads the longest prefix of `tokens` that the store has, where that pays beside taking one over."""
        if self._store is None or self._memory.has_queued_copy(slot.seq_id):
            return False
        while (match := self._store.find(tokens[:-1], slot.scope)) is not None:
            saved = match.length - self._donor(slot, tokens)[1]
            if not self._pays(saved, match.entry.length) or not self._has_room(match.entry.length):
                return False
            data = self._store.fetch(match.entry)
            if data is not None:
                return self._load(slot, match, data, self._store)
        return False

    def _load(self, slot: Slot, match: Match, data: Bytes, store: KVStore) -> bool:
        tokens = match.entry.ids
        self._drop(slot, 0)
        begin = perf_counter()
        if not self._memory.load(slot.seq_id, data, len(tokens)):
            store.discard(match.entry)
            return False
        self._observe_copy(len(tokens), perf_counter() - begin)
        self.extend(slot, tokens)
        self._drop(slot, match.length)
        store.used(match)
        return True

    def _pays(self, saved: int, copied: int) -> bool:
        """Whether computing `saved` tokens takes longer than copying the cells of `copied`."""
        return saved >= LEAST_KEPT and saved * self.token_seconds > copied * self._copy_seconds

    def _observe_copy(self, tokens: int, seconds: float) -> None:
        self._copy_seconds += _SMOOTH * (seconds / tokens - self._copy_seconds)

    def _has_room(self, tokens: int) -> bool:
        """Frees cells of idle slots until `tokens` more fit, unless busy ones leave no room for them anyway."""
        return not self._unified or (self.used_by_busy + tokens <= self._cells and self.make_room(tokens))

    def _drop(self, slot: Slot, length: int) -> None:
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


def common_prefix(a: Tokens[int], b: Tokens[int], limit: int | None = None) -> int:
    """How many tokens `a` and `b` have in common at their start, at most `limit`."""
    length = min(len(a), len(b)) if limit is None else min(len(a), len(b), limit)
    for index in range(length):
        if a[index] != b[index]:
            return index
    return max(length, 0)
