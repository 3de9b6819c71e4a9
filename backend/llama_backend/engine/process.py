"""The engine's process: loads the model, then steps, while a second thread reads commands and makes prompts."""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import msgspec

from llama_backend.engine.binding import LIBRARY, LlamaLog
from llama_backend.engine.engine import LLMEngine
from llama_backend.engine.hardware import available_memory, default_threads
from llama_backend.engine.kv_cache import LEAST_KEPT, KVCache
from llama_backend.engine.kv_files import StateFolder
from llama_backend.engine.kv_plan import KVPlan, plan_kv
from llama_backend.engine.kv_stamp import stamp_of
from llama_backend.engine.kv_store import KVStore
from llama_backend.engine.model import Model
from llama_backend.engine.prompt import PromptBuilder
from llama_backend.errors import BackendError, InvalidRequest, PromptTooLong
from llama_backend.guard import Guard
from llama_backend.ipc import (
    HEADER,
    MAX_FRAME,
    Accepted,
    Cancel,
    Command,
    Count,
    Counted,
    EngineConfig,
    Event,
    Failed,
    Forget,
    Loading,
    Ready,
    Refused,
    Stop,
    StoreChanged,
    Submit,
    decode_command,
    frame,
)

_PROGRESS_SECONDS = 0.05
_SWITCH_SECONDS = 2e-4
"""The reader's prompts and the engine's steps share Python's lock; the default of 5 ms would stall steps."""

_KEEP_AFTER_SECONDS = 15.0
"""An engine that is idle for as long puts the states of its slots on disk, one after another."""
_KEEP_NEXT_SECONDS = 0.2
_STATS_SECONDS = 1.0
"""A busy engine reports what it counts as often as this."""
_LEAVE_SECONDS = 4.5
"""What states may take to be written at the end; the server kills an engine after 5 s."""

Job = tuple[Submit, list[int]] | Cancel | Forget | Stop


class Channel:
    """Frames on a socket; sending is safe from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._file = sock.makefile("rb")

    def send(self, event: Event) -> None:
        data = frame(event)
        with self._lock:
            self._sock.sendall(data)

    def receive(self) -> Command | None:
        """The next command, or None where the other side is gone."""
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (size,) = HEADER.unpack(header)
        payload = self._file.read(size) if size <= MAX_FRAME else b""
        return decode_command(payload) if len(payload) == size else None


class Inbox:
    """Jobs from the reader's thread to the engine's."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._ready = threading.Event()

    def put(self, job: Job) -> None:
        self._jobs.append(job)
        self._ready.set()

    def take(self, wait: float | None) -> list[Job]:
        """All jobs so far; where there is none, what comes within `wait` seconds, None is at least one."""
        if wait != 0:
            self._ready.wait(wait)
        self._ready.clear()
        jobs = []
        while self._jobs:
            jobs.append(self._jobs.popleft())
        return jobs


class Reader(threading.Thread):
    """Reads commands, tokenises prompts and answers what needs no computing."""

    def __init__(self, channel: Channel, inbox: Inbox, prompts: PromptBuilder, store: KVStore, context: int) -> None:
        super().__init__(name="reader", daemon=True)
        self._store = store
        self._channel = channel
        self._inbox = inbox
        self._prompts = prompts
        self._context = context

    def run(self) -> None:
        """Reads until the other side is gone; the engine ends then, and a step that is long is not waited for."""
        while (command := self._channel.receive()) is not None:
            if isinstance(command, Submit | Count):
                self._answer(command)
            else:
                self._inbox.put(command)
        self._inbox.put(Stop())
        sleep(_LEAVE_SECONDS)
        os._exit(0)

    def _answer(self, command: Submit | Count) -> None:
        try:
            tokens = self._tokens(command)
            if isinstance(command, Count):
                ids = tokens if command.return_tokens else None
                self._channel.send(Counted(id=command.id, count=len(tokens), context=self._context, tokens=ids))
                return
            self._check(tokens)
        except BackendError as error:
            self._channel.send(_refusal(command.id, error))
            return
        except Exception as error:  # noqa: BLE001 - a template may raise anything; the thread must go on
            self._channel.send(_refusal(command.id, InvalidRequest(f"the prompt cannot be made: {error!r}")))
            return
        self._channel.send(Accepted(command.id, len(tokens)))
        self._store.prefetch(tokens, LEAST_KEPT)
        self._inbox.put((command, tokens))

    def _tokens(self, command: Submit | Count) -> list[int]:
        if command.messages is not None:
            return self._prompts.chat(command.messages)
        return self._prompts.text(command.prompt or "")

    def _check(self, tokens: list[int]) -> None:
        if not tokens:
            raise InvalidRequest("the prompt is empty: it has no tokens", param="prompt")
        if len(tokens) >= self._context:
            raise PromptTooLong.of(len(tokens), self._context)


def _refusal(number: int, error: BackendError) -> Refused:
    details = error.details
    return Refused(
        id=number,
        code=error.code,
        message=error.message,
        prompt_tokens=details.get("prompt_tokens"),
        context=details.get("context"),
        param=details.get("param"),
    )


def run(config: EngineConfig, sock: socket.socket, guard: Guard) -> int:
    """Serves one model until the other side says stop or goes away; returns the exit code."""
    channel = Channel(sock)
    log = LlamaLog(lambda line: print(line, file=sys.stderr, flush=True))
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        loaded = _load(config, channel, log, guard)
    except BackendError as error:
        channel.send(Failed(error.message))
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
    model = Model(config.path, config.gpu_layers, log, _Progress(channel))
    importer.join()
    from llama_backend.engine.runner import ModelRunner

    plan = plan_kv(config, model.context_trained, model.kv_bytes_per_token, available_memory())
    threads = config.threads or default_threads()
    vocab, inbox = model.vocab, Inbox()
    prompts = PromptBuilder(vocab, model.template)
    store = _open_store(config, model, plan, prompts)
    Reader(channel, inbox, prompts, store, plan.context).start()
    runner = ModelRunner(model, plan, threads)
    runner.warm_up(vocab.bos or 0)
    cache = KVCache(runner, plan.slots, plan.cells, plan.unified, store)
    ready = Ready(
        context=plan.context,
        context_trained=model.context_trained,
        slots=plan.slots,
        threads=threads,
        gpu_layers=model.gpu_layers,
        kv_unified=plan.unified,
        description=model.description,
        parameters=model.parameters,
        size=model.size,
    )
    channel.send(ready)
    engine = LLMEngine(runner, cache, vocab, plan.context, prompts.remember, guard)
    return Loaded(engine, channel, inbox, prompts, store)


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
        self, engine: LLMEngine, channel: Channel, inbox: Inbox, prompts: PromptBuilder, store: KVStore
    ) -> None:
        self._engine = engine
        self._channel = channel
        self._inbox = inbox
        self._prompts = prompts
        self._store = store
        self._told = -1
        self._next_stats = 0.0

    def loop(self) -> None:
        """Steps until told to stop or until nobody listens, and then puts on disk what is worth it."""
        with suppress(BrokenPipeError):
            self._serve()
        self._leave()

    def _serve(self) -> None:
        wait: float | None = _KEEP_AFTER_SECONDS
        while True:
            jobs = self._inbox.take(0 if self._engine.busy else wait)
            for job in jobs:
                if isinstance(job, Stop):
                    return
                self._do(job)
            if jobs or self._engine.busy:
                self._channel.send(self._engine.step())
                self._report()
                wait = _KEEP_AFTER_SECONDS
            else:
                kept = self._engine.keep_idle() or self._store.is_writing
                wait = _KEEP_NEXT_SECONDS if kept else None
            self._tell()

    def _do(self, job: tuple[Submit, list[int]] | Cancel | Forget) -> None:
        if isinstance(job, Cancel):
            self._engine.cancel(job.id)
        elif isinstance(job, Forget):
            self._engine.forget_idle()
            self._prompts.forget()
            self._store.clear()
        else:
            command, tokens = job
            try:
                self._submit(command, tokens)
            except InvalidRequest as error:
                self._channel.send(_refusal(command.id, error))

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
        """Reports what the store holds, where that has changed."""
        if self._told != self._store.version:
            self._told = self._store.version
            self._channel.send(StoreChanged(self._store.status))

    def _leave(self) -> None:
        end = monotonic() + _LEAVE_SECONDS
        self._engine.cancel_all()
        while monotonic() < end and self._engine.keep_idle():
            self._store.wait_written(end - monotonic())
        self._store.close(end - monotonic())
