"""The step over a fake model whose answers show any wrong KV cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import pytest

from llama_backend.engine.kv.state_files import StateFolder
from llama_backend.engine.kv.state_store import StateStore
from tests.support.engine.fakes import Bench, fake_vocab, lone_answer, next_token
from tests.support.engine.simulation import simulate

# With these beginnings the fake model goes on for a while; see `lone_answer`.
LONG, ALSO_LONG = [[n] * 5 for n in range(1, 900) if len(lone_answer([n] * 5, None, 400)[0].split()) > 200][:2]
SHORT = next([n] * 5 for n in range(1, 900) if 3 < len(lone_answer([n] * 5, None, 400)[0].split()) < 10)


def test_an_answer_ends_where_the_model_ends_it() -> None:
    bench = Bench()
    bench.submit(1, SHORT)
    bench.run()
    text, reason = lone_answer(SHORT, None, 1000)
    assert (bench.answers[1].text, bench.answers[1].reason) == (text, reason) == (text, "stop")
    assert bench.runner.samplers == 0


def test_usage_and_timings_come_with_the_last_piece() -> None:
    bench = Bench()
    bench.submit(1, LONG, max_tokens=7)
    bench.run()
    last = bench.answers[1].last
    assert last is not None
    assert last.finish_reason == "length"
    assert last.usage is not None
    assert last.timings is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens, last.usage.total_tokens) == (5, 7, 12)
    assert (last.timings.prompt_n, last.timings.predicted_n) == (5, 7)


def test_one_token_can_be_asked_for() -> None:
    bench = Bench()
    bench.submit(1, LONG, max_tokens=1)
    bench.run()
    assert len(bench.answers[1].text.split()) == 1
    assert bench.answers[1].reason == "length"


@pytest.mark.parametrize(("unified", "length", "computed"), [(True, 5, 5 + 3), (True, 90, 93), (False, 90, 93)])
def test_a_prompt_that_is_to_be_answered_several_times_is_computed_once(
    unified: bool, length: int, computed: int
) -> None:
    bench = Bench(unified=unified)
    prompt = [LONG[0]] * length
    for number in range(4):
        bench.submit(number, prompt, max_tokens=3)
    bench.run()
    assert sum(batch.prefill for batch in bench.runner.batches) == computed
    assert {bench.answers[number].text for number in range(4)} == {lone_answer(prompt, 3, 1000)[0]}


def test_more_answers_than_slots_find_the_prompt_computed() -> None:
    bench = Bench(slots=2)
    for number in range(6):
        bench.submit(number, LONG, max_tokens=3)
    bench.run()
    assert sum(batch.prefill for batch in bench.runner.batches) == len(LONG) + 5
    assert [bench.answers[number].reason for number in range(6)] == ["length"] * 6


def test_the_next_turn_computes_only_what_is_new() -> None:
    bench = Bench()
    bench.submit(1, LONG, max_tokens=20)
    bench.run()
    answer = [int(word) for word in bench.answers[1].text.split()]
    second = [*LONG, *answer, 3, 4]
    bench.submit(2, second, max_tokens=5)
    bench.run()
    last = bench.answers[2].last
    assert last is not None
    assert last.usage is not None
    assert last.usage.prompt_tokens_details == {"cached_tokens": len(LONG) + len(answer) - 1}
    assert bench.answers[2].text == lone_answer(second, 5, 1000)[0]


def test_a_full_context_ends_that_answer_only() -> None:
    bench = Bench(slots=2, cells=600, context=60, unified=True)
    bench.submit(1, LONG * 10)
    bench.submit(2, LONG)
    bench.run()
    assert bench.answers[1].reason == "length"
    assert len(bench.answers[1].text.split()) == 10
    assert bench.answers[2].text == lone_answer(LONG, None, 60)[0]


def test_a_prompt_one_short_of_the_context_gets_one_token() -> None:
    bench = Bench(slots=1, cells=50)
    bench.submit(1, LONG * 9 + [1, 2, 3, 4])
    bench.run()
    assert bench.answers[1].reason == "length"
    assert len(bench.answers[1].text.split()) == 1


def test_a_stop_string_ends_an_answer_and_is_left_out() -> None:
    bench = Bench()
    words = lone_answer(LONG, 20, 1000)[0].split()
    bench.submit(1, LONG, stop=f"{words[9]} {words[10]}")
    bench.run()
    assert bench.answers[1].text.split() == words[:9]
    assert bench.answers[1].reason == "stop"


@pytest.mark.parametrize("steps", [0, 1, 2, 6])
def test_cancelling_frees_the_slot_for_the_next_step(steps: int) -> None:
    bench = Bench(slots=1, n_batch=20)
    bench.submit(1, LONG * 20)
    bench.submit(2, SHORT)
    for _ in range(steps):
        bench.step()
    bench.engine.cancel(1)
    bench.step()
    assert bench.answers[1].reason == "cancelled"
    assert [each.id for each in bench.engine.scheduler.running] == [2]
    bench.run()
    assert bench.answers[2].text == lone_answer(SHORT, None, 1000)[0]


def test_cancelling_what_waits_leaves_what_runs_alone() -> None:
    bench = Bench(slots=1)
    bench.submit(1, LONG, max_tokens=30)
    bench.submit(2, SHORT)
    bench.step()
    bench.engine.cancel(2)
    bench.run()
    assert bench.answers[2].reason == "cancelled"
    assert bench.answers[2].text == ""
    assert bench.answers[1].text == lone_answer(LONG, 30, 1000)[0]
    assert bench.runner.samplers == 0


def test_cancelling_a_preempted_sequence() -> None:
    bench = Bench(slots=2, cells=200, context=200)
    bench.submit(1, LONG)
    bench.submit(2, ALSO_LONG)
    for _ in range(110):
        bench.step()
    assert [each.id for each in bench.engine.scheduler.queue] == [2]
    bench.engine.cancel(2)
    bench.run()
    assert bench.answers[1].text == lone_answer(LONG, None, 200)[0]
    assert bench.runner.samplers == 0


def test_cancelling_what_is_not_there_does_nothing() -> None:
    bench = Bench()
    bench.engine.cancel(99)
    bench.step()
    assert bench.answers == {}


def test_what_was_said_before_a_cancellation_is_kept() -> None:
    bench = Bench()
    bench.submit(1, LONG)
    for _ in range(5):
        bench.step()
    bench.engine.cancel(1)
    bench.run()
    bench.step()
    assert bench.answers[1].text.split() == lone_answer(LONG, 5, 1000)[0].split()


def test_ids_of_an_answer_are_remembered_unless_a_stop_string_cut_it() -> None:
    bench = Bench()
    text = lone_answer(SHORT, None, 1000)[0]
    bench.submit(1, SHORT)
    bench.submit(2, SHORT, stop=text.split()[1])
    bench.run()
    assert bench.remembered == [(text, [int(word) for word in text.split()], False)]


@pytest.mark.parametrize(("written", "shown", "stripped"), [(" a", "a", True), ("  a", " a", True), ("a", "a", False)])
def test_whether_a_leading_space_was_left_out_is_remembered(written: str, shown: str, stripped: bool) -> None:
    first = next_token(LONG)
    vocab = replace(fake_vocab(), space_prefix=True, piece=lambda token: written.encode() if token == first else b"")
    bench = Bench(vocab=vocab)
    bench.submit(1, LONG, max_tokens=1)
    bench.run()
    assert bench.remembered == [(shown, [first], stripped)]


def test_the_preempted_gets_the_answer_that_it_gets_alone() -> None:
    bench = Bench(slots=4, cells=300, context=200)
    prompts = {number: LONG if number % 2 else ALSO_LONG for number in range(1, 7)}
    for number, prompt in prompts.items():
        bench.submit(number, prompt)
    bench.run()
    assert bench.engine.scheduler.preemptions > 0
    assert bench.runner.no_room == 0
    for number, prompt in prompts.items():
        assert (bench.answers[number].text, bench.answers[number].reason) == lone_answer(prompt, None, 200)


@pytest.mark.parametrize("unified", [True, False])
def test_a_memory_that_holds_less_than_it_was_made_for_stops_nobody_for_good(unified: bool) -> None:
    bench = Bench(slots=3, cells=200 if unified else 600, context=200, unified=unified, capacity=120)
    for number in range(6):
        bench.submit(number, LONG if number % 2 else ALSO_LONG)
    bench.run()
    for number in range(6):
        whole, _ = lone_answer(LONG if number % 2 else ALSO_LONG, None, 200)
        assert bench.answers[number].reason == "length"
        assert whole.startswith(bench.answers[number].text)
        assert len(bench.answers[number].text.split()) >= 115


@pytest.mark.parametrize("unified", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_everybody_gets_the_answer_that_they_get_alone(seed: int, unified: bool) -> None:
    """Random prompts with common beginnings, small pools, cancellations, models that refuse partial removal."""
    simulate(Random(seed), unified, failing=False)


@pytest.mark.parametrize("seed", range(20))
def test_batches_that_find_no_room_now_and_then_change_no_answer(seed: int) -> None:
    simulate(Random(seed), unified=seed % 2 == 0, failing=True)


@pytest.mark.parametrize("failing", [True, False])
@pytest.mark.parametrize("seed", range(40))
def test_states_that_come_and_go_change_no_answer(tmp_path: Path, seed: int, failing: bool) -> None:
    """As before, with a store on disk and small limits, over several processes; some states are damaged between."""
    random = Random(seed)
    unified, whole = seed % 2 == 0, seed % 5 == 0
    loads = 0
    for _ in range(3):
        folder = StateFolder(tmp_path, "0" * 32, random.choice([1500, 1 << 20]))
        store = StateStore(folder, random.choice([0, 1000, 1 << 20]), lambda tokens, scope: [], whole)
        store.open()
        bench = simulate(random, unified, failing, store, refuses_partial=whole)
        while random.random() < 0.8 and bench.engine.save_idle():
            store.wait_written(5)
        store.close(5)
        loads += bench.memory.loads
        for path in tmp_path.glob("*/*"):
            if random.random() < 0.2:
                path.write_bytes(path.read_bytes()[: random.randint(0, 300)])
    assert loads > 0 or whole


def test_the_preempted_goes_on_from_the_ram() -> None:
    store = StateStore(None, 1 << 20, lambda tokens, scope: [])
    bench = Bench(slots=4, cells=300, context=200, store=store)
    prompts = {number: LONG if number % 2 else ALSO_LONG for number in range(1, 7)}
    for number, prompt in prompts.items():
        bench.submit(number, prompt)
    bench.run()
    assert bench.engine.scheduler.preemptions > 0
    assert bench.memory.loads > 0
    for number, prompt in prompts.items():
        assert (bench.answers[number].text, bench.answers[number].reason) == lone_answer(prompt, None, 200)


def in_a_state(token: int) -> bytes:
    """How a cell of the fake memory begins in a state: a list of three, the token first."""
    return b"\x93" + msgspec.msgpack.encode(token)


def test_what_is_not_to_be_stored_is_nowhere_but_in_its_slot(tmp_path: Path) -> None:
    store = StateStore(StateFolder(tmp_path, "0" * 32, 1 << 20), 1 << 20, lambda tokens, scope: [])
    store.open()
    bench = Bench(slots=1, store=store)
    public, private, other = ([start + n for n in range(100)] for start in (100, 300, 500))
    bench.submit(1, [*public], max_tokens=3)
    bench.run()
    bench.submit(2, [*public, *private], max_tokens=3, store=False)
    bench.run()
    assert bench.answers[2].last is not None
    assert bench.memory.dumps == 1, "what came before is kept before it is mixed"
    assert not bench.engine.save_idle()
    bench.submit(3, other, max_tokens=3)
    bench.run()
    bench.submit(4, [*public, *private], max_tokens=3)
    bench.run()
    assert bench.engine.save_idle()
    store.close(5)
    assert store.covered([*public, 1], "") == 100
    dumped = b"".join(path.read_bytes() for path in tmp_path.glob("*/*"))
    assert all(in_a_state(token) in dumped for token in other)
    assert bench.answers[4].text == bench.answers[2].text


def test_what_is_forgotten_while_it_is_computed_is_not_kept_afterwards(tmp_path: Path) -> None:
    store = StateStore(StateFolder(tmp_path, "0" * 32, 1 << 20), 1 << 20, lambda tokens, scope: [])
    store.open()
    bench = Bench(slots=1, store=store)
    bench.submit(1, list(range(100, 200)), max_tokens=8)
    bench.engine.step()
    bench.engine.clear_kv_states()
    bench.run()
    assert bench.answers[1].reason == "length"
    assert not bench.engine.save_idle()
    bench.submit(2, list(range(300, 400)), max_tokens=3)
    bench.run()
    assert bench.engine.save_idle(), "the next one is kept again"
    store.close(5)
    dumped = b"".join(path.read_bytes() for path in tmp_path.glob("*/*"))
    assert in_a_state(300) in dumped
    assert in_a_state(100) not in dumped


@pytest.mark.parametrize("whole", [True, False])
def test_the_next_process_goes_on_with_a_conversation(tmp_path: Path, whole: bool) -> None:
    computed = []
    prompt = list(range(1, 200))
    for turn in range(3):
        store = StateStore(StateFolder(tmp_path, "0" * 32, 1 << 20), 1 << 20, lambda tokens, scope: [], whole)
        store.open()
        bench = Bench(store=store, refuses_partial=whole)
        bench.submit(1, prompt, max_tokens=4)
        bench.run()
        assert bench.answers[1].text == lone_answer(prompt, 4, 1000)[0]
        computed.append(sum(batch.prefill for batch in bench.runner.batches))
        assert bench.engine.save_idle()
        assert not bench.engine.save_idle()
        store.close(5)
        prompt = bench.memory.cells[0] + [900 + turn] * 80
    assert computed == [199, 80, 80]
