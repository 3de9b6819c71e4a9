"""KV states of the demo model: what comes back is what was there, in other contexts and other processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from llama_backend.engine.kv.stamp import stamp_of
from llama_backend.engine.kv.state_files import StateFolder
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.llama.binding import LIBRARY
from llama_backend.engine.llama.model import Model
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.wire.api import ChatMessage, SamplingParams
from llama_backend.wire.ipc import ClearKVStates, EngineConfig, Ready, StoreChanged, Submit
from tests.support.engine.assembly import Options, assemble_on
from tests.support.engine.builders import prompts_of
from tests.support.engine.engine_process import EngineProcess
from tests.support.engine.real_bench import RealBench, runner_of

SERIES = "Numbers: " + ", ".join(map(str, range(1, 60))) + ","
"""It goes on in one way only, so that the last bit of a logit changes nothing."""
STAMP = "0" * 32


@dataclass
class StoreBench(RealBench):
    """An engine with a store."""

    store: StateStore = field(kw_only=True)


@contextmanager
def bench_of(model: Model, unified: bool, root: Path | None = None, cells: int = 1024) -> Iterator[StoreBench]:
    """An engine with a fresh context, which knows nothing but what is in the folder."""
    plan = KVPlan(2, 512, cells, unified)
    with runner_of(model, plan) as runner:
        prompts = prompts_of(model.vocab, model.template)
        folder = StateFolder(root, STAMP, 1 << 30) if root else None
        store = StateStore(folder, 1 << 28, prompts.answers_in)
        for file in store.open():
            prompts.recall(file.answers)
        engine, cache = assemble_on(runner, plan, model.vocab, prompts.remember, Options(store=store))
        yield StoreBench(engine, runner, prompts, cache, store=store)
        while cache.save_idle():
            store.wait_written(10)
        store.close(10)


@pytest.mark.parametrize("unified", [True, False])
def test_an_answer_after_loading_is_the_one_computed_afresh(model: Model, tmp_path: Path, unified: bool) -> None:
    with bench_of(model, unified, tmp_path) as bench:
        bench.submit(1, SERIES)
        bench.run()
    longer = SERIES + bench.texts[1]
    answers = []
    for root in (tmp_path, None):
        with bench_of(model, unified, root) as bench:
            bench.submit(1, longer, max_tokens=40)
            bench.run()
            answers.append(bench.texts[1])
            assert (bench.cached(1) > 200) == (root is not None)
    assert answers[0] == answers[1]


def test_a_state_is_cut_to_what_a_prompt_has_in_common_with_it(model: Model, tmp_path: Path) -> None:
    with bench_of(model, True, tmp_path) as bench:
        bench.submit(1, f"{SERIES} and then something else came, which nobody had expected.")
        bench.run()
    answers = []
    for root in (tmp_path, None):
        with bench_of(model, True, root) as bench:
            bench.submit(1, SERIES)
            bench.run()
            answers.append(bench.texts[1])
    assert answers[0] == answers[1]


def test_a_conversation_that_gave_way_comes_back_from_the_ram(model: Model) -> None:
    with bench_of(model, True, cells=512) as bench:
        bench.submit(1, SERIES)
        bench.run()
        for number in (2, 3):
            bench.submit(number, f"{number} " + "sea " * 300)
            bench.run()
        bench.submit(4, SERIES)
        bench.run()
        assert bench.texts[4] == bench.texts[1]
        assert bench.cached(4) > 200


def test_the_preempted_goes_on_with_its_cells(model: Model) -> None:
    begin, texts = SERIES[: SERIES.index(" 28")], []
    for cells in (1024, 512):
        with bench_of(model, True, cells=cells) as bench:
            for number in range(2):
                bench.submit(number, f"{number}. {begin}", max_tokens=180)
            bench.run()
            texts.append(dict(bench.texts))
            preemptions, status = bench.engine.scheduler.preemptions, bench.store.status
    assert preemptions > 0
    assert status.hits > 0
    assert texts[0] == texts[1]


@pytest.mark.parametrize("seed", range(20))
def test_llama_cpp_refuses_what_is_no_state_of_these_tokens(model: Model, seed: int) -> None:
    random = Random(seed)
    with bench_of(model, unified=seed % 2 == 0) as bench:
        bench.submit(1, "A few words.", max_tokens=2)
        bench.run()
        (slot,) = [slot for slot in bench.cache.slots if slot.tokens]
        length, target = len(slot.tokens), 1 - slot.seq_id
        data = bench.runner.dump(slot.seq_id)
        assert data is not None
        cut = bytes(data[: random.randrange(len(data))])
        assert not bench.runner.load(target, cut, length)
        assert not bench.runner.load(target, bytes(data), length + 1)
        assert not bench.runner.load(target, random.randbytes(1000), length)
        assert bench.runner.load(target, bytes(data), length)
        again = bench.runner.dump(target)
        assert again is not None
        assert len(again) == len(data)
        assert bench.runner.remove(target, 0)


def test_a_state_of_another_layout_is_refused_and_forgotten(model: Model, tmp_path: Path) -> None:
    with bench_of(model, True, tmp_path) as bench:
        bench.submit(1, SERIES)
        bench.run()
    (before,) = tmp_path.glob("*/*")
    with bench_of(model, False, tmp_path) as bench:
        bench.submit(1, SERIES)
        bench.run()
        assert bench.cached(1) == 0
        assert not before.exists()


def test_a_copy_between_streams_is_queued_until_the_next_batch_and_bars_states_meanwhile(model: Model) -> None:
    with bench_of(model, False) as bench:
        bench.submit(1, SERIES, max_tokens=2)
        bench.run()
        (slot,) = [slot for slot in bench.cache.slots if slot.tokens]
        target, data = 1 - slot.seq_id, bench.runner.dump(slot.seq_id)
        assert data is not None
        bench.runner.share(slot.seq_id, target, 20)
        assert all(map(bench.runner.has_queued_copy, (slot.seq_id, target)))
        for touch in (bench.runner.dump, lambda seq_id: bench.runner.load(seq_id, data, len(slot.tokens))):
            with pytest.raises(AssertionError, match="queued copy"):
                touch(target)
        bench.runner.remove(target, 0)
        bench.submit(2, "Another text.", max_tokens=2)
        bench.run()
        assert not any(map(bench.runner.has_queued_copy, (slot.seq_id, target)))


def test_a_sequence_that_shares_cells_has_a_state_of_its_own(model: Model) -> None:
    with bench_of(model, True) as bench:
        for number in range(2):
            bench.submit(number, f"{SERIES} {number}", max_tokens=4)
        bench.run()
        first, second = bench.cache.slots
        assert first.cells[:100] == second.cells[:100]
        data = bench.runner.dump(second.seq_id)
        assert data is not None
        bench.cache.evict(second)
        assert bench.runner.load(second.seq_id, data, 4 + bench.usages[1].prompt_tokens - 1)
        assert bench.runner.remove(second.seq_id, 0)


def test_a_stamp_changes_with_model_library_and_layout(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"a" * 100)
    other.write_bytes(b"a" * 99 + b"b")
    pool, larger = KVPlan(4, 512, 512, True), KVPlan(4, 1024, 1024, True)
    stamps = {stamp_of(one, LIBRARY, plan) for plan in (pool, larger, KVPlan(4, 512, 2048, False))}
    assert len(stamps | {stamp_of(other, LIBRARY, pool), stamp_of(one, one, pool)}) == 5
    assert stamp_of(one, LIBRARY, KVPlan(8, 512, 512, True)) in stamps
    assert stamp_of(one, LIBRARY, KVPlan(4, 512, 512, True, kv_type="q8_0")) not in stamps
    assert stamp_of(one, LIBRARY, KVPlan(4, 512, 512, True, flash_attention=False)) not in stamps
    assert stamp_of(one, LIBRARY, KVPlan(4, 512, 512, True, batch=64, ubatch=8)) in stamps


@contextmanager
def engine_of(path: Path, root: Path) -> Iterator[EngineProcess]:
    """An engine process that is told to end by the end of its socket, as a server that goes away does."""
    engine = EngineProcess(EngineConfig(path=str(path), context=1024, threads=2, kv_folder=str(root)))
    try:
        engine.wait_for(Ready)
        yield engine
        engine.hang_up()
        assert engine.finish()[0] == 0
    finally:
        engine.close()


def ask(engine: EngineProcess, messages: list[ChatMessage], store: bool = True) -> tuple[str, int, int]:
    """The answer, how many tokens of the prompt were computed, and how many tokens there are in the end."""
    sampling = SamplingParams(temperature=0, max_tokens=48)
    engine.send(Submit(id=1, sampling=sampling, messages=messages, store=store))
    text, output = engine.answer(1)
    assert output.usage is not None
    assert output.timings is not None
    return text, output.timings.prompt_n, output.usage.total_tokens


TURNS = [
    "Write a few sentences about rivers; use « and ‹ and a smiley.",
    "Now about the sea, in another language.",
    "And a list of three odd words: Zyzzyva, Xylyl, ...?",
    "Thank you.",
]


def test_a_conversation_goes_on_after_a_restart_of_everything(demo_model: Path, tmp_path: Path) -> None:
    messages, before = [ChatMessage("system", "You are a poet. " * 30)], 0
    for turn in TURNS:
        messages.append(ChatMessage("user", turn))
        with engine_of(demo_model, tmp_path) as engine:
            text, computed, total = ask(engine, messages)
        fresh = total - before
        assert not before or computed < fresh < before, "what was there is not computed again"
        messages.append(ChatMessage("assistant", text))
        before = total
    assert len(list(tmp_path.glob("*/*.kvstate"))) == 1, "a longer state takes the place of those before"


def test_a_request_that_leaves_no_trace_leaves_none(demo_model: Path, tmp_path: Path) -> None:
    messages = [ChatMessage("user", f"{SERIES} go on!")]
    with engine_of(demo_model, tmp_path) as engine:
        ask(engine, messages, store=False)
    assert list(tmp_path.glob("*/*")) == []


def test_clearing_removes_all_states(demo_model: Path, tmp_path: Path) -> None:
    messages = [ChatMessage("user", f"{SERIES} go on!")]
    with engine_of(demo_model, tmp_path) as engine:
        ask(engine, messages)
    assert len(list(tmp_path.glob("*/*"))) == 1
    with engine_of(demo_model, tmp_path) as engine:
        ask(engine, messages)
        engine.send(ClearKVStates())
        engine.wait_for(StoreChanged, lambda event: event.status.states == 0)
    assert list(tmp_path.glob("*/*")) == []


def test_a_damaged_state_is_computed_again_and_removed(demo_model: Path, tmp_path: Path) -> None:
    messages = [ChatMessage("user", f"{SERIES} go on!")]
    with engine_of(demo_model, tmp_path) as engine:
        ask(engine, messages)
    (path,) = tmp_path.glob("*/*")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with engine_of(demo_model, tmp_path) as engine:
        _, computed, _ = ask(engine, messages)
        assert not path.exists()
    assert computed > 200
