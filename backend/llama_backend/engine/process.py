"""The engine's process: loads the model, then steps, while a second thread reads commands."""

from __future__ import annotations

import gc
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

import msgspec

from llama_backend.engine.binding import LIBRARY, LlamaLog
from llama_backend.engine.engine import LLMEngine
from llama_backend.engine.kv_cache import KVCache
from llama_backend.engine.kv_files import StateFolder
from llama_backend.engine.kv_plan import KVPlan, embedding_room
from llama_backend.engine.kv_stamp import stamp_of
from llama_backend.engine.kv_store import KVStore
from llama_backend.engine.model import Model
from llama_backend.engine.outbox import Outbox
from llama_backend.engine.prompt import PromptBuilder
from llama_backend.engine.reader import LEAVE_SECONDS, Channel, Inbox, Job, Limits, Prompt, Reader, Texts, refusal
from llama_backend.engine.speculation import MOST_DRAFTED
from llama_backend.engine.tuning import Tuning, plan_context, plan_gpus
from llama_backend.errors import BackendError, InvalidRequest
from llama_backend.guard import Guard
from llama_backend.ipc import Cancel, EngineConfig, Failed, Forget, Loading, Ready, Stop, StoreChanged, Submit, Tuned

if TYPE_CHECKING:
    from llama_backend.engine.embedder import Embedder

_PROGRESS_SECONDS = 0.05
_SWITCH_SECONDS = 2e-4
"""The reader's prompts and the engine's steps share Python's lock; the default of 5 ms would stall steps."""

_KEEP_AFTER_SECONDS = 15.0
"""An engine that is idle for as long puts the states of its slots on disk, one after another."""
_KEEP_NEXT_SECONDS = 0.2
_STATS_SECONDS = 1.0
"""A busy engine reports what it counts as often as this."""


def run(config: EngineConfig, sock: socket.socket, guard: Guard) -> int:
    """Serves one model until the other side says stop or goes away; returns the exit code."""
    channel = Channel(sock)
    log = LlamaLog(lambda line: print(line, file=sys.stderr, flush=True))
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        loaded = _load(config, channel, log, guard)
    except BackendError as error:
        channel.send(Failed(error.message, error.code))
        return 1
    except BrokenPipeError:
        return 0
    gc.freeze()
    loaded.loop()
    return 0


def _load(config: EngineConfig, channel: Channel, log: LlamaLog, guard: Guard) -> Loaded:
    # The engine's numpy takes as long to import as a small model to load: both at once.
    importer = threading.Thread(target=lambda: __import__("llama_backend.engine.runner"))
    importer.start()
    offload = plan_gpus(config)
    if offload is not None:
        print(offload.text, file=sys.stderr, flush=True)
    model = Model(config.path, offload, log, _Progress(channel))
    importer.join()
    from llama_backend.engine.embedder import Embedder
    from llama_backend.engine.embedding_context import EmbeddingContext
    from llama_backend.engine.runner import ModelRunner

    plan = plan_context(config, model, offload)
    tuning = Tuning(config, plan, model, offload)
    vocab, inbox = model.vocab, Inbox()
    prompts = PromptBuilder(vocab, model.template)
    store = _open_store(config, model, plan, prompts)
    room = embedding_room(plan.context, model.kv_bytes_per_token("f16"))
    Reader(channel, inbox, prompts, store, Limits(plan.context, room, model.embedding_width)).start()
    speculate = config.speculation and model.can_cut and model.has_whole_states
    runner = ModelRunner(model, plan, tuning.threads, tuning.tuner, MOST_DRAFTED if speculate else 0)
    tuning.note_context(log)
    runner.warm_up(vocab.bos or 0)
    cache = KVCache(runner, plan.slots, plan.cells, plan.unified, store)
    ready = Ready(
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
    channel.send(ready)
    outbox = Outbox(channel.send, overlaps=offload is not None and offload.is_whole)
    runner.meanwhile = outbox.flush
    engine = LLMEngine(runner, cache, vocab, plan.context, prompts.remember, guard, speculate)
    embedder = Embedder(lambda: EmbeddingContext(model, room, tuning.threads), model.pooling, guard)
    return Loaded(engine, embedder, channel, inbox, prompts, store, tuning, outbox)


def _open_store(config: EngineConfig, model: Model, plan: KVPlan, prompts: PromptBuilder) -> KVStore:
    """The store of KV states, with those of earlier processes and the ids of their answers.

    It keeps nothing where the model's states cannot be cut to a prefix and do not say so.
    """
    folder, ram = None, config.kv_ram if model.has_whole_states else 0
    if config.kv_folder and config.kv_disk and model.has_whole_states:
        stamp = stamp_of(Path(config.path), LIBRARY, plan)
        folder = StateFolder(Path(config.kv_folder), stamp, config.kv_disk)
    store = KVStore(folder, ram, prompts.answers_in, whole=not model.can_cut)
    for file in store.open():
        prompts.recall(file.answers)
    return store


class _Progress:
    """Reports the loading of the weights, at most twenty times a second."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._next = 0.0

    def __call__(self, part: float) -> None:
        if monotonic() >= self._next:
            self._next = monotonic() + _PROGRESS_SECONDS
            self._channel.send(Loading(part))


class Loaded:
    """An engine that is ready, with all that its loop serves."""

    def __init__(
        self,
        engine: LLMEngine,
        embedder: Embedder,
        channel: Channel,
        inbox: Inbox,
        prompts: PromptBuilder,
        store: KVStore,
        tuning: Tuning,
        outbox: Outbox,
    ) -> None:
        self._engine = engine
        self._embedder = embedder
        self._channel = channel
        self._inbox = inbox
        self._prompts = prompts
        self._store = store
        self._tuning = tuning
        self._outbox = outbox
        self._told = -1
        self._told_changes = 0
        self._next_stats = 0.0

    def loop(self) -> None:
        """Steps until told to stop or until nobody listens, and then puts on disk what is worth it."""
        with suppress(BrokenPipeError):
            self._serve()
        self._leave()

    def _serve(self) -> None:
        wait: float | None = _KEEP_AFTER_SECONDS
        while True:
            busy = self._engine.busy or self._embedder.busy
            jobs = self._inbox.take(0 if busy else wait)
            for job in jobs:
                if isinstance(job, Stop):
                    return
                self._do(job)
            if jobs or busy:
                self._step()
                wait = _KEEP_AFTER_SECONDS
            else:
                self._embedder.close()
                kept = self._engine.keep_idle() or self._store.is_writing
                wait = _KEEP_NEXT_SECONDS if kept else None
            self._tell()

    def _step(self) -> None:
        """A step of the answers, and before the next one a part of the embeddings."""
        done = self._engine.step()
        self._outbox.put(done, is_last=not self._engine.busy)
        self._report()
        try:
            for embedded in self._embedder.step(beside_answers=self._engine.busy):
                self._channel.send(embedded)
        except BackendError as error:
            for number in self._embedder.cancel_all():
                self._channel.send(refusal(number, error))

    def _do(self, job: Job) -> None:
        if isinstance(job, Cancel):
            self._engine.cancel(job.id)
            self._embedder.cancel(job.id)
        elif isinstance(job, Forget):
            self._engine.forget_idle()
            self._prompts.forget()
            self._store.clear()
        elif isinstance(job, Texts):
            self._embedder.submit(job.command.id, job.texts, job.command.dimensions, job.command.account)
        elif isinstance(job, Prompt):
            try:
                self._submit(job.command, job.tokens)
            except InvalidRequest as error:
                self._channel.send(refusal(job.command.id, error))

    def _submit(self, command: Submit, tokens: list[int]) -> None:
        seed = command.sampling.seed or 0
        for index in range(command.n):
            sampling = msgspec.structs.replace(command.sampling, seed=seed + index)
            is_chat, top = command.messages is not None, command.top_logprobs
            number = command.id + index
            self._engine.submit(
                number, tokens, sampling, is_chat, top_logprobs=top, store=command.store, account=command.account
            )

    def _report(self) -> None:
        """Sends the statistics now and then, and when the work is done."""
        now = monotonic()
        if now >= self._next_stats or not self._engine.busy:
            self._next_stats = now + _STATS_SECONDS
            self._channel.send(self._engine.stats())

    def _tell(self) -> None:
        """Reports what the store holds and how it computes, where that has changed."""
        if self._told != self._store.version:
            self._told = self._store.version
            self._channel.send(StoreChanged(self._store.status))
        if self._told_changes != self._tuning.changes:
            self._told_changes = self._tuning.changes
            self._channel.send(Tuned(self._tuning.status))

    def _leave(self) -> None:
        end = monotonic() + LEAVE_SECONDS
        self._engine.cancel_all()
        while monotonic() < end and self._engine.keep_idle():
            self._store.wait_written(end - monotonic())
        self._store.close(end - monotonic())
