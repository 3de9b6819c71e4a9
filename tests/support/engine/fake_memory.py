"""KV cells as llama.cpp keeps them: a table of who has which cells, apart from what is in the cells.

In a unified pool sequences share cells by the table alone. Where each sequence has a buffer of its own, `share` writes
the table at once and only queues the copy of the buffer; the next decode runs it, whatever was done to source or target
in between. Nothing here forbids to load or to dump meanwhile: as in llama.cpp, the cells are then wrong, and each cell
remembers what it was computed from.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from llama_backend.engine.kv.memory import Bytes


class Cell(NamedTuple):
    """What is in a cell: a token, and what it was computed from."""

    token: int
    scope: str
    """Whose it is."""
    history: int
    """A digest of the scope and of all tokens up to this one."""


_NEVER_WRITTEN = Cell(-1, "nobody", -1)
_decode = msgspec.msgpack.Decoder(list[Cell]).decode


def cells_for(tokens: Tokens[int], scope: str = "", before: Tokens[Cell] = ()) -> list[Cell]:
    """The right cells for tokens that come behind others."""
    history, cells = before[-1].history if before else 0, []
    for token in tokens:
        history = hash((history, token, scope))
        cells.append(Cell(token, scope, history))
    return cells


@dataclass
class FakeMemory:
    """KV cells by sequence id; `capacity` is of the pool where unified, of each sequence where split."""

    capacity: int
    unified: bool = True
    refuses_partial: bool = False
    refuses_states: bool = False
    table: dict[int, list[int]] = field(default_factory=dict)
    """By sequence the number of the cell for each position."""
    buffers: dict[int, dict[int, Cell]] = field(default_factory=dict)
    """By buffer what is in the cells."""
    queued: list[tuple[int, int]] = field(default_factory=list)
    """Copies of whole buffers that the next decode runs, source and target."""
    shares: list[tuple[int, int, int]] = field(default_factory=list)
    removals: list[tuple[int, int]] = field(default_factory=list)
    copies: int = 0
    dumps: int = 0
    loads: int = 0

    def remove(self, seq_id: int, start: int) -> bool:
        self.removals.append((seq_id, start))
        numbers = self.table.setdefault(seq_id, [])
        if self.refuses_partial and 0 < start < len(numbers):
            return False
        del numbers[start:]
        return True

    @property
    def can_share(self) -> bool:
        return not self.refuses_partial

    def share(self, source: int, target: int, length: int) -> None:
        assert self.can_share, "a state of all tokens was taken for that of some"
        assert source != target
        assert not self.table.get(target), "only an empty sequence takes over cells"
        self.table[target] = self.table[source][:length]
        if not self.unified:
            self.queued.append((source, target))
        self.shares.append((source, target, length))

    def has_queued_copy(self, seq_id: int) -> bool:
        return any(seq_id in pair for pair in self.queued)

    def run_copies(self) -> None:
        """What a decode begins with."""
        for source, target in self.queued:
            self.buffers[target] = dict(self._buffer(source))
            self.copies += 1
        self.queued.clear()

    def dump(self, seq_id: int) -> Bytes | None:
        self.dumps += 1
        cells = self.cells_of(seq_id)
        return msgspec.msgpack.encode(cells) if cells else None

    def load(self, seq_id: int, data: Bytes, length: int) -> bool:
        assert not self.table.get(seq_id), "only an empty sequence takes a state"
        cells = _decode(data)
        assert len(cells) == length
        if len(cells) > self.capacity - self.held(seq_id) or self.refuses_states:
            return False
        self._put(seq_id, cells)
        self.loads += 1
        return True

    def add(self, seq_id: int, position: int, tokens: Tokens[int], scope: str = "") -> None:
        """Computes tokens; what comes of it follows from the cells before."""
        before = self.cells_of(seq_id)
        assert position == len(before), f"sequence {seq_id} has {len(before)} cells, and {position} is to be next"
        self._put(seq_id, cells_for(tokens, scope, before))

    def cells_of(self, seq_id: int) -> list[Cell]:
        """What is in the cells of a sequence now, by position."""
        buffer = self._buffer(seq_id)
        return [buffer.get(number, _NEVER_WRITTEN) for number in self.table.get(seq_id, [])]

    @property
    def settled(self) -> FakeMemory:
        """The memory as it is once the queued copies have run."""
        if not self.queued:
            return self
        settled = FakeMemory(self.capacity, self.unified, table=self.table, buffers=dict(self.buffers))
        settled.queued = list(self.queued)
        settled.run_copies()
        return settled

    @property
    def cells(self) -> dict[int, list[int]]:
        """Tokens by sequence, as they are once the queued copies have run."""
        settled = self.settled
        return {seq_id: [cell.token for cell in settled.cells_of(seq_id)] for seq_id in self.table}

    @property
    def occupied(self) -> list[int]:
        """Sequences that have cells."""
        return [seq_id for seq_id, numbers in self.table.items() if numbers]

    def held(self, seq_id: int) -> int:
        """Cells in use where a sequence has its own."""
        return len(self._taken(seq_id))

    def _taken(self, seq_id: int) -> set[int]:
        if not self.unified:
            return set(self.table.get(seq_id, []))
        return {number for numbers in self.table.values() for number in numbers}

    def _buffer(self, seq_id: int) -> dict[int, Cell]:
        return self.buffers.setdefault(0 if self.unified else seq_id, {})

    def _put(self, seq_id: int, cells: list[Cell]) -> None:
        """Writes into the first cells that are free."""
        taken, buffer = self._taken(seq_id), self._buffer(seq_id)
        number = 0
        for cell in cells:
            while number in taken:
                number += 1
            buffer[number] = cell
            self.table.setdefault(seq_id, []).append(number)
            number += 1
