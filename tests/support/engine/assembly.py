"""An engine put together from its parts, over any runner and memory."""

from __future__ import annotations

from dataclasses import dataclass

from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.engine import LLMEngine, OnAnswer, Runner
from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.kv.memory import KVMemory
from llama_backend.engine.kv.slots import Slots
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.kv.swap_policy import LEAST_KEPT
from llama_backend.engine.llama.runner import ModelRunner
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.prompt.vocab import Vocab
from llama_backend.engine.speculation.draft_model import DraftModel
from llama_backend.engine.speculation.speculator import Speculator


@dataclass(frozen=True)
class Options:
    """What an engine can be made with besides its model."""

    speculates: bool = False
    draft_model: DraftModel | None = None
    costs: CostModel | None = None
    """None learns from the steps."""
    store: StateStore | None = None
    least_kept: int = LEAST_KEPT


DEFAULTS = Options()


def new_cache(
    memory: KVMemory,
    slots: int,
    cells: int,
    unified: bool = True,
    costs: CostModel | None = None,
    store: StateStore | None = None,
    least_kept: int = LEAST_KEPT,
) -> KVCache:
    """A cache of empty slots."""
    return KVCache(memory, Slots(slots), cells, unified, costs or CostModel(), store, least_kept)


def assemble(
    runner: Runner, memory: KVMemory, plan: KVPlan, vocab: Vocab, on_answer: OnAnswer, options: Options = DEFAULTS
) -> tuple[LLMEngine, KVCache]:
    """An engine, and its cache."""
    costs = options.costs or CostModel()
    cache = new_cache(memory, plan.slots, plan.cells, plan.unified, costs, options.store, options.least_kept)
    model, is_on = options.draft_model, options.speculates
    speculator = Speculator(cache, costs, plan.context, runner.n_batch, vocab.is_eog, model, is_on)
    return LLMEngine(runner, vocab, plan.context, cache, costs, speculator, on_answer), cache


def assemble_on(
    runner: ModelRunner, plan: KVPlan, vocab: Vocab, on_answer: OnAnswer, options: Options = DEFAULTS
) -> tuple[LLMEngine, KVCache]:
    """An engine over llama.cpp, and its cache."""
    return assemble(runner, runner, plan, vocab, on_answer, options)
