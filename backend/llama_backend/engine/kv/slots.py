"""The llama.cpp sequences that an engine can use at the same time, the tokens in their KV cells, and their choice."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field


@dataclass(slots=True, eq=False)
class Slot:
    """One llama.cpp sequence id and the tokens in its KV cells, which stay after a request for the next turn."""

    seq_id: int
    tokens: list[int] = field(default_factory=list)
    cells: list[int] = field(default_factory=list)
    """The number of the cell of each token; slots that share a cell have the same number."""
    busy: bool = False
    last_used: int = 0
    scope: str = ""
    """Only requests of the same scope may use its tokens."""
    private: bool = False
    """Whether its state may be kept nowhere else, as the request asks with `store: false`."""

    def shares(self, tokens: Tokens[int], scope: str, limit: int | None = None) -> int:
        """How many of the first of `tokens` a request of `scope` finds here, at most `limit`."""
        return common_prefix(self.tokens, tokens, limit) if self.scope == scope else 0


class Slots:
    """All slots of an engine, by their sequence ids. The engine's thread changes them; others may only ask `held`."""

    def __init__(self, count: int) -> None:
        self._slots = [Slot(seq_id) for seq_id in range(count)]

    def __iter__(self) -> Iterator[Slot]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, seq_id: int) -> Slot:
        return self._slots[seq_id]

    @property
    def idle(self) -> list[Slot]:
        """The slots that no request uses, the least recently used first."""
        return sorted((slot for slot in self._slots if not slot.busy), key=lambda slot: slot.last_used)

    @property
    def busy(self) -> list[Slot]:
        """The slots that requests use."""
        return [slot for slot in self._slots if slot.busy]

    def others(self, slot: Slot) -> list[Slot]:
        """All slots but one."""
        return [other for other in self._slots if other is not slot]

    def held(self, tokens: Tokens[int], scope: str) -> int:
        """The most of the first of `tokens` that any slot holds.

        Any thread may ask, so it looks at copies: the engine's thread may cut a slot meanwhile.
        """
        held = (slot.tokens.copy() for slot in self._slots if slot.scope == scope)
        return max((common_prefix(each, tokens) for each in held), default=0)


def choose_slot(idle: Collection[Slot], tokens: Tokens[int], scope: str) -> tuple[Slot, int]:
    """Which of some idle slots a new sequence gets, and how many of its tokens stay there.

    It is the slot that shares the longest prefix with `tokens`. A slot that would lose more than half of its tokens
    counts as one that shares nothing: otherwise conversations with the same system prompt would evict each other. Among
    equal slots an empty one is taken, or else the least recently used. At least one token is left to compute, since its
    logits are needed.
    """
    shared = {slot.seq_id: slot.shares(tokens, scope, len(tokens) - 1) for slot in idle}
    slot = max(idle, key=lambda slot: _preference(slot, shared[slot.seq_id]))
    return slot, shared[slot.seq_id]


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
