"""The state of one model's engine: what it reported last, and whether requests can be taken."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic

from llama_backend.errors import BackendError, Unavailable, from_wire
from llama_backend.server.engines.counter_sums import CounterSums
from llama_backend.server.engines.watched_process import WatchedProcess
from llama_backend.wire.ipc import EngineStats, Failed, Loading, Ready, StepDone, StoreChanged, Tuned
from llama_backend.wire.status import KVStoreStatus, State, TuningStatus

_log = logging.getLogger("llama_backend.server")

Report = Loading | Ready | Tuned | Failed | StepDone | EngineStats | StoreChanged
"""Events about the engine, not about a single request."""


class EngineStatus:
    """The state of a model's engine across its restarts, and the last reports of the present engine."""

    def __init__(self, counters: CounterSums) -> None:
        self.state: State = "loading"
        self.reason: str | None = None
        """Why the state is `failed` or `restarting`."""
        self.process: WatchedProcess | None = None
        """The present engine's process."""
        self.progress = 0.0
        """Part of the model that is loaded, 0 to 1."""
        self.ready: Ready | None = None
        """What the present engine reported when it was ready."""
        self.was_ready = False
        """Whether any engine has been ready."""
        self.had_gpu = False
        """Whether any engine had layers on a GPU."""
        self.load_error: Failed | None = None
        """Why the present engine cannot load the model."""
        self.last_step = monotonic()
        """When the engine ended a step, or became ready."""
        self.running = 0
        """Sequences that have a slot."""
        self.waiting = 0
        """Sequences that wait for a slot."""
        self.counters = counters
        self.kv_store: KVStoreStatus | None = None
        self.tuning: TuningStatus | None = None
        self._failure: Failed | None = None
        """Why there is no engine, until one is ready again."""
        self._changed = asyncio.Event()

    def engine_started(self) -> None:
        """Resets what was known of the engine before."""
        self.ready, self.load_error, self.progress = None, None, 0.0

    def engine_ended(self, reason: str) -> None:
        """Notes that the process is gone."""
        self.process = None
        self.running = self.waiting = 0
        self.counters.close()
        if self.state == "ready":
            self.change("restarting", reason)

    def fail(self, failure: Failed) -> None:
        """Notes why there is no engine."""
        self._failure = failure
        self.change("failed", failure.reason)

    def change(self, state: State, reason: str | None = None) -> None:
        """Sets the state and wakes all tasks that wait for a change."""
        self.state, self.reason = state, reason
        self._changed.set()
        self._changed = asyncio.Event()
        _log.info("engine: %s%s", state, f": {reason}" if reason else "")

    async def wait_ready(self, seconds: float) -> None:
        """Returns when the engine is ready.

        Raises the reason where the engine failed, and Unavailable where it takes longer than `seconds`.
        """
        end = monotonic() + seconds
        while self.state != "ready":
            left = end - monotonic()
            if self.state == "failed" or left <= 0:
                raise self._error()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def take(self, report: Report) -> None:
        """Takes a report of the present engine."""
        match report:
            case StepDone():
                self.running, self.waiting = report.running, report.waiting
                self.last_step = monotonic()
            case EngineStats():
                self.counters.take(report)
            case Loading():
                self._take_progress(report)
            case Ready():
                self._take_ready(report)
            case StoreChanged():
                self.kv_store = report.status
            case Tuned():
                self.tuning = report.status
            case Failed():
                self.load_error = report

    def _take_progress(self, loading: Loading) -> None:
        self.progress = loading.progress
        if self.process is not None:
            self.process.note_activity()

    def _take_ready(self, ready: Ready) -> None:
        self.ready, self.was_ready, self.progress, self.tuning = ready, True, 1.0, ready.tuning
        self.had_gpu = self.had_gpu or ready.gpu_layers != 0
        self.last_step = monotonic()
        self._failure = None
        self.change("ready")

    def _error(self) -> BackendError:
        """Why requests cannot be taken: the last failure, also while the model is being loaded once more."""
        if self._failure is not None:
            return from_wire({"error": {"message": self._failure.reason, "code": self._failure.code}}, 503)
        return Unavailable(f"the model is {self.state}", retry_after=2, progress=round(self.progress, 3))
