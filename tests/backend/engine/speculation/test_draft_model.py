"""A small model that guesses for a large one: cells in step, and drafts where they pay."""

from __future__ import annotations

from random import Random

import pytest

from llama_backend.engine.kv.slots import Slot
from llama_backend.engine.sequence import Sequence
from llama_backend.engine.speculation.draft_model import CATCH_UP, Chunk, DraftModel
from tests.support.engine.fake_guesser import FakeGuesser
from tests.support.engine.fakes import Bench, lone_answer, new_sequence
from tests.support.engine.simulation import simulate

LONG = next([n] * 5 for n in range(1, 900) if len(lone_answer([n] * 5, None, 400)[0].split()) > 200)


def bench_with(guesser: FakeGuesser, part: float = 0.01) -> Bench:
    return Bench(slots=4, token_part=part, draft_model=DraftModel(guesser, 4))


class SlowReader(DraftModel):
    """Takes a tenth of a plain step for each token that it reads."""

    def reading_seconds(self, sequence: Sequence) -> float:
        return 0.0001 * self.unread(sequence)


def sequence(number: int, tokens: list[int], seq_id: int = 0) -> Sequence:
    return new_sequence(number, tokens, slot=Slot(seq_id))


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
        model.catch_up([long])
        parts += 1
    assert parts == 2
    assert max(len(chunk.tokens) for chunks in guesser.computed for chunk in chunks) == CATCH_UP


def test_what_others_have_read_is_taken_over() -> None:
    guesser = FakeGuesser()
    model, text = DraftModel(guesser, 3), [n % 90 for n in range(100)]
    model.catch_up([sequence(1, [*text, 5], 0)])
    guesser.computed.clear()
    other = sequence(2, [*text, 7, 8], 2)
    assert not model.is_behind(other)
    model.guess([other], [1])
    assert guesser.computed == [[Chunk(2, 100, [7, 8])]]
    assert guesser.memory.cells[2] == other.tokens


@pytest.mark.parametrize(("slots", "n_batch"), [(16, 64), (64, 64), (2, 512)])
def test_many_are_read_in_batches_that_fit(slots: int, n_batch: int) -> None:
    guesser = FakeGuesser(n_batch=n_batch)
    model = DraftModel(guesser, slots)
    all_of_them = [sequence(n, [n + 1] * 30, n) for n in range(slots)]
    while behind := [each for each in all_of_them if model.is_behind(each)]:
        model.catch_up(behind)
    drafts = model.guess(all_of_them, [2] * slots)
    assert all(len(draft) == 2 for draft in drafts)


def test_cells_of_those_who_have_ended_make_room() -> None:
    guesser = FakeGuesser(capacity=40)
    model, mine = DraftModel(guesser, 2), sequence(2, [*LONG], 1)
    model.guess([sequence(1, [4] * 16, 0)], [16])
    assert len(model.guess([mine], [16])[0]) == 16
    assert guesser.memory.occupied == [1]


def test_measuring_leaves_nothing_and_tells_what_a_guess_takes() -> None:
    guesser = FakeGuesser()
    model = DraftModel(guesser, 2)
    assert model.seconds(1, 4) == 0
    model.measure(3)
    assert 0 < model.seconds(1, 1) < model.seconds(1, 4)
    assert guesser.memory.occupied == []


def test_without_room_it_frees_its_cells_and_guesses_nothing() -> None:
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


def test_a_prompt_is_read_only_for_an_answer_that_wins_it_back() -> None:
    """Reading 400 tokens takes 40 plain steps, in which a few tokens more come than without."""
    found = []
    for max_tokens in (12, 200):
        guesser = FakeGuesser()
        bench = Bench(slots=4, token_part=0.01, draft_model=SlowReader(guesser, 4))
        bench.submit(1, [5] * 400, max_tokens=max_tokens)
        bench.run()
        found.append(len(guesser.computed))
    assert found[0] == 0 < found[1]


def test_idle_cells_are_forgotten_with_those_of_the_large_model() -> None:
    guesser = FakeGuesser()
    bench = bench_with(guesser)
    bench.submit(1, LONG, max_tokens=30)
    bench.run()
    assert guesser.memory.occupied
    bench.engine.clear_kv_states()
    assert guesser.memory.occupied == []


@pytest.mark.parametrize("seed", range(20))
def test_whatever_comes_everybody_gets_the_answer_that_they_get_alone(seed: int) -> None:
    guesser = FakeGuesser(4, capacity=150 if seed % 3 == 0 else 10_000)
    simulate(Random(seed), unified=seed % 2 == 0, failing=seed % 5 == 0, token_part=0.01, guesser=guesser)
