"""A smaller model with the same vocabulary, which guesses the next tokens of the large one."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from time import perf_counter
from typing import Protocol

from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.kv.memory import NoRoom
from llama_backend.engine.kv.slots import common_prefix
from llama_backend.engine.sequence import Sequence

CATCH_UP = 128
"""The most tokens that the small model reads before a step, to catch up with the large one."""
_ALONG = 16
"""The most tokens of a sequence that are read together with guessing."""
_LEAST_SHARED = 16
"""Tokens that copying cells from another sequence must save."""
_LEAST_PROBABILITY = 0.2
"""A guess ends at a token that is less probable than this."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, from position `start` on."""

    seq_id: int
    start: int
    tokens: Tokens[int]


class Guesser(Protocol):
    """What the draft model needs of llama.cpp."""

    n_batch: int

    def likeliest(self, chunks: list[Chunk]) -> list[tuple[int, float]]:
        """Computes tokens; returns the likeliest next one for each chunk, with its probability. Raises NoRoom."""
        ...

    def remove(self, seq_id: int, start: int) -> bool:
        """Frees the cells of a sequence from position `start` on."""
        ...

    def share(self, source: int, target: int, length: int) -> None:
        """Gives an empty sequence the first cells of another."""
        ...


@dataclass(slots=True)
class _Cells:
    """What the small model has computed under one sequence id, and for which sequence."""

    tokens: list[int] = field(default_factory=list)
    owner: int | None = None
    """The number of the sequence."""
    scope: str = ""
    """Only sequences of the same scope may use the cells."""
    checked: int = 0
    """How many of the first tokens were compared with those of the owner."""


class DraftModel:
    """Guesses tokens with the small model, and keeps its cells up to date, under the ids of the large model's slots."""

    def __init__(self, guesser: Guesser, slots: int) -> None:
        self._guesser = guesser
        self._cells = [_Cells() for _ in range(slots)]
        self._costs = CostModel()
        self._chunk = min(CATCH_UP, guesser.n_batch)
        self._along = min(_ALONG, guesser.n_batch // slots)

    def measure(self, token: int) -> None:
        """Measures steps before the first request, so that no guess is tried that cannot pay."""
        for tokens in ([token] * self._chunk, [token], [token]):
            self._compute([Chunk(0, len(self._cells[0].tokens), tokens)])
        self.clear()

    def seconds(self, sequences: int, depth: int) -> float:
        """Expected seconds for guessing `depth` tokens for each of some sequences; 0 where nothing is known."""
        return self._costs.step_seconds(2 * sequences) + (depth - 1) * self._costs.step_seconds(sequences)

    def is_behind(self, sequence: Sequence) -> bool:
        """Whether more of a sequence is unread than can be read together with guessing."""
        return self.unread(sequence) > self._along

    def unread(self, sequence: Sequence) -> int:
        """Tokens of a sequence that have yet to be read, at least the last one; frees cells that hold other tokens."""
        cells = self._cells_of(sequence)
        limit = len(sequence.tokens) - 1
        kept = cells.checked + common_prefix(
            cells.tokens[cells.checked :], sequence.tokens[cells.checked : limit], limit
        )
        if kept < len(cells.tokens):
            self._guesser.remove(self._id(sequence), kept)
            del cells.tokens[kept:]
        cells.checked = kept
        if limit - kept >= _LEAST_SHARED:
            self._adopt(sequence, cells)
        return len(sequence.tokens) - cells.checked

    def reading_seconds(self, sequence: Sequence) -> float:
        """Expected seconds for reading what is unread of a sequence."""
        return self.unread(sequence) * self._costs.step_seconds(self._chunk) / self._chunk

    def catch_up(self, sequences: list[Sequence]) -> None:
        """Reads unread tokens of some sequences, as many as fit into one step."""
        chunks, room = [], self._chunk
        for sequence in sequences[: self._chunk]:
            start = len(sequence.tokens) - self.unread(sequence)
            part = sequence.tokens[start : start + room]
            chunks.append(Chunk(self._id(sequence), start, part))
            room -= len(part)
            if not room:
                break
        self._compute(chunks)

    def clear(self) -> None:
        """Frees all cells."""
        self._free_all_but(frozenset())

    def guess(self, sequences: list[Sequence], limits: list[int]) -> list[list[tuple[int, float]]]:
        """For each sequence the tokens that may come next, at most as many as its limit, with their probabilities."""
        drafts: list[list[tuple[int, float]]] = [[] for _ in sequences]
        chunks = {index: self._rest(sequence) for index, sequence in enumerate(sequences) if limits[index] > 0}
        while chunks:
            found = self._compute(list(chunks.values()))
            following = {}
            for index, (token, probability) in zip(chunks, found, strict=False):
                drafts[index].append((token, probability))
                if len(drafts[index]) < limits[index] and probability >= _LEAST_PROBABILITY:
                    seq_id = self._id(sequences[index])
                    following[index] = Chunk(seq_id, len(self._cells[seq_id].tokens), [token])
            chunks = following
        return drafts

    def _rest(self, sequence: Sequence) -> Chunk:
        start = len(sequence.tokens) - self.unread(sequence)
        return Chunk(self._id(sequence), start, sequence.tokens[start:])

    def _adopt(self, sequence: Sequence, cells: _Cells) -> None:
        """Takes over the longest prefix that another sequence's cells hold, where that saves enough."""
        limit = len(sequence.tokens) - 1
        shared = [other if other.scope == sequence.scope else _Cells() for other in self._cells]
        lengths = [common_prefix(other.tokens, sequence.tokens, limit) for other in shared]
        length = max(lengths)
        if length - cells.checked < _LEAST_SHARED:
            return
        self._guesser.remove(self._id(sequence), 0)
        self._guesser.share(lengths.index(length), self._id(sequence), length)
        cells.tokens[:] = sequence.tokens[:length]
        cells.checked = length

    def _cells_of(self, sequence: Sequence) -> _Cells:
        cells = self._cells[self._id(sequence)]
        if cells.scope != sequence.scope:
            self._guesser.remove(self._id(sequence), 0)
            cells.tokens.clear()
        if cells.owner != sequence.id:
            cells.owner, cells.scope, cells.checked = sequence.id, sequence.scope, 0
        return cells

    @staticmethod
    def _id(sequence: Sequence) -> int:
        assert sequence.slot is not None
        return sequence.slot.seq_id

    def _compute(self, chunks: list[Chunk]) -> list[tuple[int, float]]:
        """The likeliest token after each chunk. Where there is no room, frees all cells and returns none."""
        begin = perf_counter()
        try:
            found = self._likeliest(chunks)
        except NoRoom:
            self.clear()
            return []
        self._costs.observe_decode(sum(len(chunk.tokens) for chunk in chunks), perf_counter() - begin)
        for chunk in chunks:
            self._cells[chunk.seq_id].tokens += chunk.tokens
        return found

    def _likeliest(self, chunks: list[Chunk]) -> list[tuple[int, float]]:
        """The likeliest token after each chunk; frees the cells of other sequences if needed. Raises NoRoom."""
        try:
            return self._guesser.likeliest(chunks)
        except NoRoom:
            self._free_all_but(frozenset(chunk.seq_id for chunk in chunks))
            return self._guesser.likeliest(chunks)

    def _free_all_but(self, kept: frozenset[int]) -> None:
        for seq_id, cells in enumerate(self._cells):
            if seq_id not in kept:
                self._guesser.remove(seq_id, 0)
                cells.tokens.clear()
                cells.checked = 0
