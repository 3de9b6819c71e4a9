"""What goes into a step, and who waits: pure tables over a fake memory."""

from __future__ import annotations

import pytest

from llama_backend.engine.batch import Batch
from llama_backend.engine.budget import PrefillBudget
from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.scheduler import Scheduler
from llama_backend.engine.sequence import Sequence, SequenceStatus
from tests.support.engine.assembly import new_cache
from tests.support.engine.fakes import FakeMemory, new_sequence

WAITING, PREFILL, DECODE = SequenceStatus.WAITING, SequenceStatus.PREFILL, SequenceStatus.DECODE


class FixedBudget(PrefillBudget):
    """As many prompt tokens a step as the test says."""

    def __init__(self, tokens: int) -> None:
        super().__init__(512, CostModel())
        self._tokens = tokens

    def tokens(self, decoding: int) -> int:
        return self._tokens


def make(slots: int = 4, cells: int = 1000, unified: bool = True, budget: int = 64) -> Scheduler:
    memory = FakeMemory(cells if unified else cells // slots, unified)
    return Scheduler(new_cache(memory, slots, cells, unified), FixedBudget(budget))


def sequence(number: int, prompt: int, max_tokens: int | None = None) -> Sequence:
    """A sequence whose prompt of `prompt` tokens has nothing in common with others."""
    return new_sequence(number, [number * 1000 + i for i in range(prompt)], max_tokens)


def add(scheduler: Scheduler, *sequences: Sequence) -> None:
    for each in sequences:
        scheduler.add(each)


def compute(scheduler: Scheduler, batch: Batch) -> None:
    """What the engine does after a decode: cells are there, and who has none pending gets a token."""
    scheduler.commit(batch)
    for item in batch.items:
        if item.wants_logits:
            item.sequence.status = DECODE
            item.sequence.tokens.append(-item.sequence.id)


def plan(batch: Batch) -> list[tuple[int, int, int]]:
    return [(item.sequence.id, item.start, item.count) for item in batch.items]


def step(scheduler: Scheduler) -> list[tuple[int, int, int]]:
    batch = scheduler.schedule()
    compute(scheduler, batch)
    return plan(batch)


def until_preempted(scheduler: Scheduler, times: int = 1) -> None:
    for _ in range(1000):
        if scheduler.preemptions == times:
            return
        step(scheduler)
    raise AssertionError("nobody was preempted")


def test_nothing_to_do_is_an_empty_batch() -> None:
    scheduler = make()
    assert not scheduler.busy
    assert scheduler.schedule().items == []


def test_a_prompt_is_computed_in_chunks_of_the_budget_then_token_by_token() -> None:
    scheduler = make(budget=16)
    add(scheduler, sequence(1, 40))
    assert [step(scheduler) for _ in range(5)] == [
        [(1, 0, 16)],
        [(1, 16, 16)],
        [(1, 32, 8)],
        [(1, 40, 1)],
        [(1, 41, 1)],
    ]


def test_only_the_last_chunk_wants_logits() -> None:
    scheduler = make(budget=16)
    add(scheduler, sequence(1, 20))
    wanted = []
    for _ in range(3):
        batch = scheduler.schedule()
        wanted.append(batch.items[0].wants_logits)
        compute(scheduler, batch)
    assert wanted == [False, True, True]


def test_decoding_is_never_held_up_by_prompts() -> None:
    scheduler = make(budget=16)
    add(scheduler, sequence(1, 4), sequence(2, 4))
    step(scheduler)
    add(scheduler, sequence(3, 200), sequence(4, 200))
    for _ in range(10):
        batch = scheduler.schedule()
        assert {item.sequence.id for item in batch.items} >= {1, 2}
        assert (batch.decode, batch.prefill) == (2, 16)
        compute(scheduler, batch)


def test_where_each_has_cells_of_its_own_prompts_and_answers_take_turns() -> None:
    scheduler = make(budget=16, unified=False)
    add(scheduler, sequence(1, 4), sequence(2, 4))
    step(scheduler)
    add(scheduler, sequence(3, 40))
    assert [step(scheduler) for _ in range(7)] == [
        [(1, 4, 1), (2, 4, 1)],
        [(3, 0, 16)],
        [(1, 5, 1), (2, 5, 1)],
        [(3, 16, 16)],
        [(1, 6, 1), (2, 6, 1)],
        [(3, 32, 8)],
        [(1, 7, 1), (2, 7, 1), (3, 40, 1)],
    ]


def test_an_answer_s_step_says_that_a_prompt_waits_for_its_end() -> None:
    scheduler = make(budget=16, unified=False)
    add(scheduler, sequence(1, 4), sequence(2, 40))
    held = []
    for _ in range(6):
        batch = scheduler.schedule()
        held.append((batch.decode, batch.delays_prompt))
        compute(scheduler, batch)
    assert held == [(0, True), (1, True), (0, True), (1, True), (0, True), (2, False)]


def test_prompts_share_the_budget_in_the_order_they_came() -> None:
    scheduler = make(budget=16)
    add(scheduler, sequence(1, 10), sequence(2, 10), sequence(3, 10))
    assert step(scheduler) == [(1, 0, 10), (2, 0, 6)]
    assert step(scheduler) == [(1, 10, 1), (2, 6, 4), (3, 0, 10)]


def test_first_come_first_served() -> None:
    scheduler = make(slots=2)
    add(scheduler, *[sequence(number, 5) for number in (1, 2, 3, 4)])
    step(scheduler)
    assert [each.id for each in scheduler.running] == [1, 2]
    scheduler.finish(scheduler.running[0])
    step(scheduler)
    assert [each.id for each in scheduler.running] == [2, 3]
    assert [each.id for each in scheduler.queue] == [4]


def test_a_short_prompt_does_not_overtake_a_long_one_that_does_not_fit_yet() -> None:
    scheduler = make(cells=500)
    add(scheduler, sequence(1, 300, 10), sequence(2, 300, 10), sequence(3, 5, 10))
    step(scheduler)
    assert [each.id for each in scheduler.running] == [1]
    assert [each.id for each in scheduler.queue] == [2, 3]


@pytest.mark.parametrize(("unified", "running"), [(True, [1]), (False, [1, 2])])
def test_only_a_shared_pool_makes_a_prompt_wait_for_cells(unified: bool, running: list[int]) -> None:
    scheduler = make(slots=2, cells=400, unified=unified)
    add(scheduler, sequence(1, 190), sequence(2, 190))
    step(scheduler)
    assert [each.id for each in scheduler.running] == running


def test_a_batch_is_ordered_by_slot() -> None:
    scheduler = make(slots=3)
    first, second, third = sequence(1, 5), sequence(2, 5), sequence(3, 5)
    add(scheduler, first, second, third)
    step(scheduler)
    scheduler.finish(first)
    add(scheduler, sequence(4, 5))
    batch = scheduler.schedule()
    assert [each.id for each in scheduler.running] == [2, 3, 4]
    assert [item.sequence.slot.seq_id for item in batch.items if item.sequence.slot] == [0, 1, 2]
    assert [item.sequence.id for item in batch.items] == [4, 2, 3]


def test_cached_tokens_are_counted_and_not_computed_again() -> None:
    scheduler = make(slots=1)
    first = sequence(1, 20)
    add(scheduler, first)
    step(scheduler)
    scheduler.finish(first)
    again = sequence(1, 20)
    again.tokens += [7, 8]
    again.n_prompt = 22
    add(scheduler, again)
    assert step(scheduler) == [(1, 20, 2)]
    assert again.cached == 20


def test_idle_cells_go_before_anybody_is_preempted() -> None:
    scheduler = make(slots=2, cells=120, budget=512)
    idle = sequence(1, 80)
    add(scheduler, idle)
    step(scheduler)
    scheduler.finish(idle)
    add(scheduler, sequence(2, 60))
    assert step(scheduler) == [(2, 0, 60)]
    assert scheduler.preemptions == 0


def test_cells_of_an_idle_slot_are_no_gift_to_who_takes_it() -> None:
    """They were nobody's before, and they are the newcomer's afterwards."""
    scheduler = make(slots=2, cells=300, budget=512)
    earlier, running = sequence(1, 140), sequence(2, 100)
    add(scheduler, earlier, running)
    step(scheduler)
    scheduler.finish(earlier)
    again = sequence(1, 150)
    add(scheduler, again)
    step(scheduler)
    assert list(scheduler.queue) == [again]


def test_a_full_pool_preempts_the_newest_and_nobody_else() -> None:
    scheduler = make(slots=3, cells=200, budget=512)
    sequences = [sequence(number, 10, None) for number in (1, 2)]
    add(scheduler, *sequences)
    for _ in range(60):
        step(scheduler)
    add(scheduler, sequence(3, 2, 1))
    until_preempted(scheduler)
    assert [each.id for each in scheduler.running] == [1]
    assert scheduler.queue.next() is sequences[1]
    assert sequences[1].status is WAITING
    assert sequences[1].slot is None


def test_the_preempted_is_computed_again_with_what_it_had_generated() -> None:
    scheduler = make(slots=2, cells=200, budget=512)
    old, new = sequence(1, 10, None), sequence(2, 10, None)
    add(scheduler, old, new)
    until_preempted(scheduler)
    had = len(new.tokens)
    assert had > new.n_prompt
    scheduler.finish(old)
    batch = scheduler.schedule()
    assert plan(batch) == [(2, 0, had)]
    assert (batch.prefill, batch.decode) == (had, 0)
    assert batch.items[0].wants_logits


def test_preempted_sequences_keep_their_order() -> None:
    scheduler = make(slots=3, cells=230, budget=512)
    add(scheduler, *[sequence(number, 10) for number in (1, 2, 3)])
    until_preempted(scheduler, times=2)
    assert [each.id for each in scheduler.queue] == [2, 3]


def test_a_batch_that_llama_cpp_has_no_room_for_costs_idle_cells_then_the_newest() -> None:
    scheduler = make(slots=3, budget=512)
    idle, old, new = (sequence(number, 10) for number in (1, 2, 3))
    add(scheduler, idle, old, new)
    step(scheduler)
    scheduler.finish(idle)
    assert scheduler.shrink()
    assert scheduler.running == [old, new]
    assert scheduler.shrink()
    assert scheduler.running == [old]
    assert not scheduler.shrink()
    assert scheduler.running == [old]


def test_after_that_nobody_is_admitted_before_one_has_finished() -> None:
    scheduler = make(slots=2, budget=512)
    old, new = sequence(1, 10), sequence(2, 10)
    add(scheduler, old, new)
    step(scheduler)
    assert scheduler.shrink()
    assert step(scheduler) == [(1, 10, 1)]
    scheduler.finish(old)
    assert step(scheduler) == [(2, 0, 11)]


@pytest.mark.parametrize("status", [WAITING, PREFILL, DECODE])
def test_finishing_frees_the_slot_for_the_next_step(status: SequenceStatus) -> None:
    scheduler = make(slots=1, budget=16)
    target = sequence(1, 40)
    before = [sequence(9, 40)] if status is WAITING else []
    add(scheduler, *before, target)
    for _ in range(4 if status is DECODE else 1):
        step(scheduler)
    assert target.status is status
    scheduler.finish(target)
    assert target.status is SequenceStatus.FINISHED
    assert target.slot is None
    for each in before:
        scheduler.finish(each)
    add(scheduler, sequence(2, 5))
    assert step(scheduler) == [(2, 0, 5)]


def test_a_batch_is_as_full_as_it_says() -> None:
    scheduler = make(slots=3, cells=230, budget=50)
    add(scheduler, *[sequence(number, 60) for number in (1, 2, 3)])
    for _ in range(120):
        batch = scheduler.schedule()
        assert sum(item.count for item in batch.items) == batch.prefill + batch.decode
        compute(scheduler, batch)
        for each in [each for each in scheduler.running if len(each.tokens) >= 200]:
            scheduler.finish(each)


def compute_on(memory: FakeMemory, scheduler: Scheduler, batch: Batch) -> None:
    """As `compute`, with the cells in the fake memory too."""
    for item in batch.items:
        assert item.sequence.slot is not None
        memory.add(item.sequence.slot.seq_id, item.start, item.sequence.tokens[item.start : item.start + item.count])
    compute(scheduler, batch)


@pytest.mark.parametrize("unified", [True, False])
def test_a_prefix_that_several_begin_with_is_computed_once(unified: bool) -> None:
    prefix, memory = list(range(1, 101)), FakeMemory(1000, unified)
    scheduler = Scheduler(new_cache(memory, 4, 4000, unified), FixedBudget(40))
    together = [new_sequence(n, [*prefix, 1000 * n, 1000 * n + 1], 5) for n in (1, 2, 3)]
    add(scheduler, *together)
    computed = 0
    while not all(each.status is DECODE for each in together):
        batch = scheduler.schedule()
        computed += batch.prefill
        compute_on(memory, scheduler, batch)
    assert computed == len(prefix) + 3 * 2
    assert [each.cached for each in together] == [0, 100, 100]


def test_a_sequence_goes_its_own_way_when_the_source_of_its_prefix_is_gone() -> None:
    prefix, memory = list(range(1, 101)), FakeMemory(1000)
    scheduler = Scheduler(new_cache(memory, 4, 1000), FixedBudget(40))
    source, other = (new_sequence(n, [*prefix, n, n]) for n in (1, 2))
    add(scheduler, source, other)
    compute_on(memory, scheduler, scheduler.schedule())
    assert other.computed == 0
    scheduler.finish(source)
    assert plan(scheduler.schedule()) == [(2, 40, 40)]
