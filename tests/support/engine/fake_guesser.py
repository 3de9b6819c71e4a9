"""A small model that guesses for the fake model."""

from __future__ import annotations

from llama_backend.engine.kv.memory import NoRoom
from llama_backend.engine.speculation.draft_model import Chunk
from tests.support.engine.fake_memory import FakeMemory
from tests.support.engine.fakes import next_token


class FakeGuesser:
    """A small model that is a fake model too, wrong now and then."""

    def __init__(self, wrong_one_in: int = 0, capacity: int = 10_000, n_batch: int = 512) -> None:
        self.n_batch = n_batch
        self.memory = FakeMemory(capacity)
        self.computed: list[list[Chunk]] = []
        self._wrong = wrong_one_in

    def likeliest(self, chunks: list[Chunk]) -> list[tuple[int, float]]:
        held = sum(len(cells) for cells in self.memory.cells.values())
        if held + sum(len(chunk.tokens) for chunk in chunks) > self.memory.capacity:
            raise NoRoom
        assert sum(len(chunk.tokens) for chunk in chunks) <= self.n_batch
        self.computed.append(chunks)
        for chunk in chunks:
            assert chunk.tokens
            self.memory.add(chunk.seq_id, chunk.start, list(chunk.tokens))
        return [self._next(self.memory.cells[chunk.seq_id]) for chunk in chunks]

    def _next(self, cells: list[int]) -> tuple[int, float]:
        is_wrong = self._wrong and sum(cells) % self._wrong == 0
        return (999 if is_wrong else next_token(cells)), 0.5 if is_wrong else 0.97

    def remove(self, seq_id: int, start: int) -> bool:
        return self.memory.remove(seq_id, start)

    def share(self, source: int, target: int, length: int) -> None:
        self.memory.share(source, target, length)
