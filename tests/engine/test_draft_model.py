"""A small model that guesses for a large one: cells in step, and drafts where they pay."""

from __future__ import annotations

from random import Random

import pytest

from llama_backend.engine.detokenizer import Detokenizer
from llama_backend.engine.draft_model import CATCH_UP, Chunk, DraftModel
from llama_backend.engine.kv_cache import NoRoom, Slot
from llama_backend.engine.sequence import Sequence
from tests.engine.fakes import Bench, FakeMemory, lone_answer, next_token, piece
from tests.engine.simulation import simulate

LONG = next([n] * 5 for n in range(1, 900) if len(lone_answer([n] * 5, None, 400)[0].split()) > 200)


class FakeGuesser:
    """A small model that is a fake model too, wrong now and then."""

    def __init__(self, wrong_one_in: int = 0, capacity: int = 10_000) -> None:
        self.memory = FakeMemory(capacity)
        self.computed: list[list[Chunk]] = []
        self._wrong = wrong_one_in

    def likeliest(self, chunks: list[Chunk]) -> list[tuple[int, float]]:
        held = sum(len(cells) for cells in self.memory.cells.values())
        if held + sum(len(chunk.tokens) for chunk in chunks) > self.memory.capacity:
            raise NoRoom
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


def bench_with(guesser: FakeGuesser, part: float = 0.01) -> Bench:
    bench = Bench(slots=4, token_part=part)
    bench.engine._speculator._model = DraftModel(guesser, 4)
    return bench


def sequence(number: int, tokens: list[int], seq_id: int = 0) -> Sequence:
    return Sequence(number, tokens, Detokenizer(piece), slot=Slot(seq_id))


def test_a_draft_is_what_the_small_model_would_say() -> None:
    guesser = FakeGuesser()
    (draft,) = DraftModel(guesser, 1).guess([sequence(1, [*LONG])], [6])
    assert [token for token, _ in draft] == [int(word) for word in lone_answer(LONG, 6, 400)[0].split()]
    assert [[len(chunk.tokens) for chunk in chunks] for chunks in guesser.computed] == [[5], [1], [1], [1], [1], [1]]


def test_only_what_is_new_is_computed_and_what_did_not_come_is_taken_back() -> None:
    guesser = FakeGuesser()
    model, mine = DraftModel(guesser, 1), sequence(1, [*LONG])
    (draft,) = model.guess([mine], [4])
    mine.tokens += [draft[0][0], 7]
    guesser.computed.clear()
    model.guess([mine], [1])
    assert guesser.computed == [[Chunk(0, 6, [7])]]
    assert guesser.memory.cells[0] == mine.tokens


def test_a_slot_of_somebody_else_keeps_what_they_have_in_common() -> None:
    guesser = FakeGuesser()
    model = DraftModel(guesser, 1)
    model.guess([sequence(1, [1, 2, 3, 4])], [1])
    guesser.computed.clear()
    model.guess([sequence(2, [1, 2, 9, 9])], [1])
    assert guesser.computed == [[Chunk(0, 2, [9, 9])]]


def test_a_long_prompt_is_read_in_parts() -> None:
    guesser = FakeGuesser()
    model, long = DraftModel(guesser, 1), sequence(1, [5] * (2 * CATCH_UP + 10))
    parts = 0
    while model.is_behind(long):
        model.catch_up(long)
        parts += 1
    assert parts == 2
    assert max(len(chunk.tokens) for chunks in guesser.computed for chunk in chunks) == CATCH_UP


def test_without_room_it_forgets_and_guesses_nothing() -> None:
    guesser = FakeGuesser(capacity=8)
    model, mine = DraftModel(guesser, 2), sequence(1, [*LONG])
    assert len(model.guess([mine], [9])[0]) == 4
    assert guesser.memory.occupied == []
    assert len(model.guess([mine], [2])[0]) == 2


@pytest.mark.parametrize("wrong_one_in", [0, 3])
def test_an_answer_is_the_same_and_takes_fewer_steps(wrong_one_in: int) -> None:
    guesser = FakeGuesser(wrong_one_in)
    bench = bench_with(guesser)
    bench.submit(1, LONG, max_tokens=100)
    bench.run()
    assert bench.answers[1].text == lone_answer(LONG, 100, 1000)[0]
    assert len(bench.runner.batches) < 60
    last = bench.answers[1].last
    assert last is not None
    assert last.timings is not None
    assert (last.timings.draft_n == last.timings.draft_n_accepted) is (wrong_one_in == 0)


def test_a_small_model_that_is_always_wrong_is_given_up() -> None:
    guesser = FakeGuesser(wrong_one_in=1)
    bench = bench_with(guesser, part=0.3)
    bench.submit(1, LONG, max_tokens=200)
    bench.run()
    assert bench.answers[1].text == lone_answer(LONG, 200, 1000)[0]
    assert len(guesser.computed) < 40


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_everybody_gets_the_answer_that_they_get_alone(seed: int) -> None:
    guesser = FakeGuesser(4, capacity=150 if seed % 3 == 0 else 10_000)
    simulate(Random(seed), unified=seed % 2 == 0, failing=seed % 5 == 0, token_part=0.01, guesser=guesser)
