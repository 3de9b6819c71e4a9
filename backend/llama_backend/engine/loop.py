"""The engine's loop: jobs in, steps out, and what is worth keeping put on disk when there is nothing else to do."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

import msgspec

from llama_backend.engine.loading import Loaded
from llama_backend.engine.messages.intake import LEAVE_SECONDS, Channel, Inbox, Job, Prompt, Texts, refusal
from llama_backend.errors import BackendError, InvalidRequest
from llama_backend.wire.ipc import Cancel, ClearKVStates, Stop, StoreChanged, Submit, Tuned

_KEEP_AFTER_SECONDS = 15.0
"""An engine that is idle for as long puts the states of its slots on disk, one after another."""
_KEEP_NEXT_SECONDS = 0.2
_STATS_SECONDS = 1.0
"""A busy engine reports what it counts as often as this."""


class EngineLoop:
    """Runs an engine for the commands that come: steps while there is work, and tells what changes."""

    def __init__(self, loaded: Loaded, channel: Channel, inbox: Inbox) -> None:
        self._engine = loaded.engine
        self._embedder = loaded.embedder
        self._prompts = loaded.prompts
        self._store = loaded.store
        self._tuning = loaded.tuning
        self._outbox = loaded.outbox
        self._channel = channel
        self._inbox = inbox
        self._told = -1
        self._told_changes = 0
        self._next_stats = 0.0

    def run(self) -> None:
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
        self._report()
        self._outbox.put(done, is_last=not self._engine.busy)
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
        elif isinstance(job, ClearKVStates):
            self._engine.clear_kv_states()
            self._prompts.clear()
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
                number,
                tokens,
                sampling,
                is_chat,
                top_logprobs=top,
                store=command.store,
                account=command.account,
                scope=command.scope,
            )

    def _report(self) -> None:
        """Sends the statistics now and then, and before the last piece of the last answer."""
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
