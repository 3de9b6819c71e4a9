"""Loads a model and puts an engine together, in this order.

1. The chat template's process is started, and numpy imported, while the weights are loaded.
2. The placement: on GPUs before the weights are loaded, in main memory afterwards.
3. The prompt builder and the store of KV states; then the thread that reads commands is started.
4. llama.cpp's context, which is warmed up with one token; then the draft model's.
5. The engine, which uses all of these. The server is told that it is ready.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from llama_backend.crash_notes import CrashNotes
from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.engine import LLMEngine
from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.kv.slots import Slots
from llama_backend.engine.kv.stamp import stamp_of
from llama_backend.engine.kv.state_files import StateFolder
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.messages.channel import Channel
from llama_backend.engine.messages.inbox import Inbox
from llama_backend.engine.messages.intake import Intake, IntakeThread, Limits
from llama_backend.engine.messages.outbox import Outbox
from llama_backend.engine.placement.kv_plan import KVPlan, embedding_room
from llama_backend.engine.placement.placement import Placement, place_on_processor
from llama_backend.engine.prompt.builder import PromptBuilder
from llama_backend.engine.prompt.renderer import Renderer
from llama_backend.engine.speculation.draft_model import DraftModel
from llama_backend.engine.speculation.speculator import MOST_DRAFTED, Speculator
from llama_backend.engine.tuning import Tuning, plan_gpus
from llama_backend.errors import InvalidRequest, ModelUnreadable
from llama_backend.wire.ipc import EngineConfig, Loading, Ready

if TYPE_CHECKING:
    from llama_backend.engine.embedder import Embedder
    from llama_backend.engine.placement.offload import Offload

_PROGRESS_SECONDS = 0.05


@dataclass(frozen=True)
class Loaded:
    """An engine that is ready, and the other parts that its loop needs."""

    engine: LLMEngine
    embedder: Embedder
    prompts: PromptBuilder
    store: StateStore
    tuning: Tuning
    outbox: Outbox


def load(config: EngineConfig, channel: Channel, inbox: Inbox, log: LlamaLog, notes: CrashNotes) -> Loaded:
    """Returns an engine for `config`, and starts the thread that puts requests from `channel` into `inbox`.

    Raises ModelUnreadable, and DeviceUnavailable where a GPU was asked for that does not exist.
    """
    # Importing numpy takes as long as loading a small model, so both are done at once.
    importer = threading.Thread(target=lambda: __import__("llama_backend.engine.llama.runner"))
    importer.start()
    renderer = Renderer()
    weights = _load_weights(config, channel, log)
    importer.join()
    from llama_backend.engine.embedder import Embedder
    from llama_backend.engine.llama.embedding_context import EmbeddingContext
    from llama_backend.engine.llama.runner import ModelRunner

    model, plan = weights.model, weights.placement.kv
    tuning = Tuning(config, weights.placement, model, weights.draft)
    vocab = model.vocab
    prompts = PromptBuilder(vocab, _with_template(renderer, model, config.path), plan.context)
    store = _open_store(config, model, plan, prompts)
    room = embedding_room(plan.context, model.kv_size.bytes_per_token("f16"))
    slots, limits = Slots(plan.slots), Limits(plan.context, room, model.embedding_width)
    IntakeThread(channel, inbox, Intake(inbox, prompts, store, slots, limits), notes).start()
    speculate = config.speculation and model.supports_partial_removal and model.states_are_complete
    runner = ModelRunner(model, plan, tuning.threads, tuning.tuner, MOST_DRAFTED if speculate else 0)
    tuning.note_context(log)
    runner.warm_up(vocab.bos or 0)
    draft = _draft_model(weights.draft, plan, tuning, vocab.size) if weights.draft is not None else None
    costs = CostModel()
    cache = KVCache(runner, slots, plan.cells, plan.unified, costs, store)
    speculator = Speculator(cache, costs, plan.context, runner.n_batch, vocab.is_eog, draft, speculate)
    channel.send(_ready(model, plan, tuning))
    outbox = Outbox(channel.send, overlaps=tuning.is_all_on_gpus)
    runner.meanwhile = outbox.flush
    engine = LLMEngine(runner, vocab, plan.context, cache, costs, speculator, prompts.remember, notes)
    embedder = Embedder(lambda: EmbeddingContext(model, room, tuning.threads), model.pooling, notes)
    return Loaded(engine, embedder, prompts, store, tuning, outbox)


@dataclass(frozen=True)
class _Weights:
    """The loaded models, and where they were placed."""

    model: Model
    draft: Model | None
    placement: Placement


def _load_weights(config: EngineConfig, channel: Channel, log: LlamaLog) -> _Weights:
    """Loads the model and its draft model: onto GPUs by a plan made before, or else into main memory.

    In main memory the KV cells are planned afterwards: a loaded model knows its sizes, so its file is not read again.
    """
    placement = plan_gpus(config)
    offload = placement.offload if placement is not None else None
    if offload is not None:
        print(offload.text, file=sys.stderr, flush=True)
    model = Model(config.path, offload, log, _Progress(channel))
    draft = _load_draft_model(config, model, offload, log)
    if placement is None:
        sizes = [each.kv_size for each in (model, draft) if each is not None]
        placement = place_on_processor(config, model.context_trained, sizes)
    return _Weights(model, draft, placement)


def _with_template(renderer: Renderer, model: Model, path: str) -> Renderer:
    """Makes the process compile the model's chat template. Raises ModelUnreadable where the template is broken."""
    vocab = model.vocab
    try:
        renderer.open(model.template, vocab.text(vocab.bos), vocab.text(vocab.eos))
    except InvalidRequest as error:
        raise ModelUnreadable(f"{path}: {error}") from error
    return renderer


def _load_draft_model(config: EngineConfig, model: Model, offload: Offload | None, log: LlamaLog) -> Model | None:
    """The weights of the draft model, or None. Raises ModelUnreadable where it cannot draft for this model."""
    if config.draft_model is None or not config.speculation:
        return None
    from llama_backend.engine.llama.draft_runner import check_draft_model

    draft = Model(config.draft_model, offload.for_draft if offload is not None else None, log)
    check_draft_model(model, draft, config.draft_model)
    return draft


def _draft_model(model: Model, plan: KVPlan, tuning: Tuning, n_vocab: int) -> DraftModel:
    from llama_backend.engine.llama.draft_runner import DraftRunner

    token = model.vocab.bos or 0
    runner = DraftRunner(model, plan, lambda: tuning.threads_now, n_vocab)
    runner.warm_up(token)
    draft = DraftModel(runner, plan.slots)
    draft.measure(token)
    return draft


def _ready(model: Model, plan: KVPlan, tuning: Tuning) -> Ready:
    return Ready(
        context=plan.context,
        context_trained=model.context_trained,
        slots=plan.slots,
        threads=tuning.threads,
        gpu_layers=tuning.gpu_layers,
        kv_unified=plan.unified,
        description=model.description,
        parameters=model.parameters,
        size=model.size,
        tuning=tuning.status,
    )


def _open_store(config: EngineConfig, model: Model, plan: KVPlan, prompts: PromptBuilder) -> StateStore:
    """Opens the store of KV states, and gives `prompts` the answers in the states of earlier processes.

    With a sliding window nothing is stored, since a state would only have the last tokens.
    """
    folder, ram = None, config.kv_ram if model.states_are_complete else 0
    if config.kv_folder and config.kv_disk and model.states_are_complete:
        stamp = stamp_of(Path(config.path), model.library, plan)
        folder = StateFolder(Path(config.kv_folder), stamp, config.kv_disk, model.vocab.size)
    store = StateStore(folder, ram, prompts.answers_in, only_whole=not model.supports_partial_removal)
    for file in store.open():
        prompts.recall(file.answers, file.scope)
    return store


class _Progress:
    """Tells the server how much of the weights is loaded, at most twenty times a second."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._next = 0.0

    def __call__(self, part: float) -> None:
        if monotonic() >= self._next:
            self._next = monotonic() + _PROGRESS_SECONDS
            self._channel.send(Loading(part))
