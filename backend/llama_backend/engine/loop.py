"""The engine's loop: takes jobs, runs steps, and saves idle slots on disk when there is nothing else to do."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

from llama_backend.engine.loading import Loaded
from llama_backend.engine.messages.channel import Channel, refusal
from llama_backend.engine.messages.inbox import Answers, Inbox, Job, Texts
from llama_backend.engine.messages.intake import SHUTDOWN_SECONDS
from llama_backend.errors import BackendError, InvalidRequest
from llama_backend.wire.ipc import Cancel, ClearKVStates, Stop, StoreChanged, Tuned

_SAVE_AFTER_SECONDS = 15.0
"""An engine that has been idle for so long saves the states of its slots on disk, one after another."""
_SAVE_NEXT_SECONDS = 0.2
"""The pause between two of them, in which a new request finds the engine idle."""
_STATS_SECONDS = 1.0
"""The interval at which a busy engine reports its counters."""


class EngineLoop:
    """Runs an engine: takes jobs, runs steps while there is work, and reports what has changed."""

    def __init__(self, loaded: Loaded, channel: Channel, inbox: Inbox) -> None:
        self._engine = loaded.engine
        self._embedder = loaded.embedder
        self._prompts = loaded.prompts
        self._store = loaded.store
        self._tuning = loaded.tuning
        self._outbox = loaded.outbox
        self._channel = channel
        self._inbox = inbox
        self._reported_version = -1
        self._reported_changes = 0
        self._next_stats = 0.0

    def run(self) -> None:
        """Runs steps until Stop comes or the server is gone, and then saves the idle slots on disk."""
        with suppress(BrokenPipeError):
            self._serve()
        self._leave()

    def _serve(self) -> None:
        wait: float | None = _SAVE_AFTER_SECONDS
        while True:
            busy = self._engine.busy or self._embedder.busy
            jobs = self._inbox.take(0 if busy else wait)
            for job in jobs:
                if isinstance(job, Stop):
                    return
                self._do(job)
            if jobs or busy:
                self._step()
                wait = _SAVE_AFTER_SECONDS
            else:
                self._embedder.close()
                saved = self._engine.save_idle() or self._store.is_writing
                wait = _SAVE_NEXT_SECONDS if saved else None
            self._report_changes()

    def _step(self) -> None:
        """Runs a step of the answers, and then a part of the embeddings."""
        done = self._engine.step()
        self._report_stats()
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
        elif isinstance(job, Answers):
            self._submit(job)

    def _submit(self, job: Answers) -> None:
        try:
            for request in job.requests:
                self._engine.submit(request)
        except InvalidRequest as error:
            self._channel.send(refusal(job.id, error))

    def _report_stats(self) -> None:
        """Sends the counters at intervals, and before the end of the last running answer."""
        now = monotonic()
        if now >= self._next_stats or not self._engine.busy:
            self._next_stats = now + _STATS_SECONDS
            self._channel.send(self._engine.stats())

    def _report_changes(self) -> None:
        """Reports the state of the store and the number of threads, where they have changed."""
        if self._reported_version != self._store.version:
            self._reported_version = self._store.version
            self._channel.send(StoreChanged(self._store.status))
        if self._reported_changes != self._tuning.changes:
            self._reported_changes = self._tuning.changes
            self._channel.send(Tuned(self._tuning.status))

    def _leave(self) -> None:
        """Saves the idle slots on disk, as far as the time allows."""
        end = monotonic() + SHUTDOWN_SECONDS
        self._engine.cancel_all()
        while monotonic() < end and self._engine.save_idle():
            self._store.wait_written(end - monotonic())
        self._store.close(end - monotonic())
