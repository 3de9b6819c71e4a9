"""Which tokens the next step computes: one of each sequence that is decoding, and chunks of prompts."""

from __future__ import annotations

from llama_backend.engine.batch import Batch, BatchItem
from llama_backend.engine.budget import PrefillBudget
from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.kv.slots import common_prefix
from llama_backend.engine.sequence import Sequence, SequenceStatus
from llama_backend.fair_queue import ANSWER_COST, FairQueue

_RESERVE = 64
"""Cells that must stay free for each running sequence's next tokens, when another sequence is admitted."""


class Scheduler:
    """Chooses the sequences of each step, fairly between accounts; decoding never waits for prefill.

    When a unified pool is full, the sequence that was admitted last gives up its cells and waits in the queue; its
    state is saved in RAM where that is quicker than computing it again. No request fails because of others.
    """

    def __init__(self, cache: KVCache, budget: PrefillBudget) -> None:
        self._cache = cache
        self._budget = budget
        self.queue = FairQueue[Sequence]()
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._crowded = False
        self._prompts_next = False

    @property
    def busy(self) -> bool:
        return bool(self.running or self.queue)

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence."""
        self.queue.add(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Takes a sequence out, wherever it is; its slot becomes idle and keeps its cells."""
        if sequence in self.running:
            self.running.remove(sequence)
            self.queue.done(sequence)
        elif sequence in self.queue:
            self.queue.remove(sequence)
        if sequence.slot is not None:
            self._cache.release(sequence.slot)
            sequence.slot = None
        sequence.status = SequenceStatus.FINISHED
        self._crowded = False

    def shrink(self) -> bool:
        """Evicts idle slots after llama.cpp found no room for a batch, or else preempts the sequence admitted last.

        After a preemption, none is admitted until a sequence has finished. False where only one sequence is left.
        """
        if self._cache.evict_idle():
            return True
        if len(self.running) < 2:
            return False
        self._preempt(self.running[-1], Batch())
        self._crowded = True
        return True

    def schedule(self) -> Batch:
        """The batch of the next step; empty where there is nothing to do."""
        batch = Batch()
        self._admit()
        if self._cache.unified:
            self._plan_decode(batch)
            self._plan_prefill(batch)
        else:
            self._take_turns(batch)
        batch.items.sort(key=_by_slot)
        return batch

    def commit(self, batch: Batch) -> None:
        """Notes that a batch was computed: its tokens have cells now."""
        for item in batch.items:
            if item.sequence.slot is not None:
                tokens = item.sequence.tokens[item.start : item.start + item.count]
                self._cache.extend(item.sequence.slot, tokens)
            if item.sequence.status is SequenceStatus.DECODE:
                self.queue.charge(item.sequence, ANSWER_COST * item.count)

    def _admit(self) -> None:
        """Gives slots to sequences of the queue, as long as there are slots and cells."""
        while (sequence := self.queue.next()) is not None and self._fits(sequence):
            slot = self._cache.acquire(sequence.tokens, sequence.scope, not sequence.request.store)
            if slot is None:
                return
            self.queue.take(sequence)
            sequence.slot = slot
            sequence.status = SequenceStatus.PREFILL
            self._cache.reuse(slot, sequence.tokens)
            self._find_prefix_source(sequence)
            sequence.cached = min(len(slot.tokens), sequence.n_prompt)
            if not sequence.n_completion:
                self.queue.charge(sequence, sequence.pending)
            self.running.append(sequence)

    def _find_prefix_source(self, sequence: Sequence) -> None:
        """Finds a sequence in prefill that is computing a longer prefix of this one than the cache has."""
        sequence.prefix_source, sequence.shared_tokens = None, sequence.computed
        limit = len(sequence.tokens) - 1
        for other in self.running if self._cache.can_share else []:
            if not _can_be_source(other, sequence.scope):
                continue
            shared = common_prefix(other.tokens, sequence.tokens, limit)
            is_longer = shared > max(other.computed, sequence.shared_tokens)
            if is_longer and shared - sequence.computed >= self._cache.least_shared(shared == limit):
                sequence.prefix_source, sequence.shared_tokens = other, shared

    def _waits_for_prefix(self, sequence: Sequence) -> bool:
        """Whether another sequence is still computing this one's prefix; if not, its cells are taken over."""
        source = sequence.prefix_source
        if source is None or sequence.slot is None:
            return False
        if source.status is SequenceStatus.PREFILL and source.computed < sequence.shared_tokens:
            return True
        sequence.prefix_source = None
        self._cache.adopt_prefix(sequence.slot, sequence.tokens)
        sequence.cached = max(sequence.cached, min(sequence.computed, sequence.n_prompt))
        return False

    def _fits(self, sequence: Sequence) -> bool:
        """Whether the pool has cells for a sequence, in addition to those that the running ones will need."""
        if not self.running:
            return True
        if self._crowded:
            return False
        if not self._cache.unified:
            return True
        planned = self._cache.used_by_busy + sum(_cells_to_come(other) for other in self.running)
        own = len(sequence.tokens) - self._cache.shared_prefix(sequence.tokens, sequence.scope) + _reserve(sequence)
        return planned + own <= self._cache.cells

    def _take_turns(self, batch: Batch) -> None:
        """Plans prefill and decoding in separate steps; llama.cpp computes each stream of cells on its own anyway.

        So the result of a prompt is the same to the last bit, whatever else runs.
        """
        if self._prompts_next:
            self._plan_prefill(batch)
        if not batch.items:
            self._plan_decode(batch)
        if not batch.items:
            self._plan_prefill(batch)
        self._prompts_next = batch.decode > 0
        batch.delays_prompt = any(sequence.status is SequenceStatus.PREFILL for sequence in self.running)

    def _plan_decode(self, batch: Batch) -> None:
        """Adds a token of each sequence that is decoding."""
        for sequence in self._decoding:
            if sequence.slot is not None and self._make_room(batch, 1, sequence):
                batch.items.append(BatchItem(sequence, len(sequence.tokens) - 1, 1))
                batch.decode += 1

    @property
    def _decoding(self) -> list[Sequence]:
        return [sequence for sequence in self.running if sequence.status is SequenceStatus.DECODE]

    def _plan_prefill(self, batch: Batch) -> None:
        """Adds chunks of prompts to a batch, within the budget."""
        budget = self._budget.tokens(len(self._decoding))
        for sequence in list(self.running):
            if (
                sequence.status is not SequenceStatus.PREFILL
                or batch.prefill >= budget
                or self._waits_for_prefix(sequence)
            ):
                continue
            count = min(sequence.pending, budget - batch.prefill)
            if self._make_room(batch, count, sequence):
                batch.items.append(BatchItem(sequence, sequence.computed, count))
                batch.prefill += count

    def _make_room(self, batch: Batch, count: int, sequence: Sequence) -> bool:
        """Makes room for `count` more tokens, if need be by preempting the sequences that were admitted last.

        False where the sequence itself was preempted.
        """
        while not self._cache.make_room(batch.prefill + batch.decode + count):
            victim = self.running[-1]
            self._preempt(victim, batch)
            if victim is sequence:
                return False
        return True

    def _preempt(self, sequence: Sequence, batch: Batch) -> None:
        """Takes a sequence's cells away and puts it back into the queue, where it is next."""
        self._unplan(sequence, batch)
        self.running.remove(sequence)
        if sequence.slot is not None:
            self._cache.evict(sequence.slot, durable=False)
            self._cache.release(sequence.slot)
        sequence.slot = sequence.prefix_source = None
        sequence.status = SequenceStatus.WAITING
        self.queue.put_back(sequence)
        self.preemptions += 1

    @staticmethod
    def _unplan(sequence: Sequence, batch: Batch) -> None:
        """Takes a sequence's tokens out of a batch."""
        for item in [item for item in batch.items if item.sequence is sequence]:
            batch.items.remove(item)
            if sequence.status is SequenceStatus.DECODE:
                batch.decode -= item.count
            else:
                batch.prefill -= item.count


def _by_slot(item: BatchItem) -> int:
    """The order of a batch: llama.cpp computes neighbouring streams together if they come in their order."""
    return item.sequence.slot.seq_id if item.sequence.slot else -1


def _can_be_source(other: Sequence, scope: str) -> bool:
    return other.scope == scope and other.status is SequenceStatus.PREFILL and other.prefix_source is None


def _cells_to_come(sequence: Sequence) -> int:
    """Cells that a running sequence will need."""
    there = sequence.shared_tokens if sequence.prefix_source else sequence.computed
    return len(sequence.tokens) - there + _reserve(sequence)


def _reserve(sequence: Sequence) -> int:
    """Cells for what a sequence will generate next."""
    return _RESERVE if sequence.remaining is None else min(_RESERVE, sequence.remaining)
