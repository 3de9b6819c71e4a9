"""Keeps one engine running: starts it, connects it with its requests, and starts it again when it dies."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

from llama_backend.errors import EngineDied, Unavailable
from llama_backend.server.engines.counter_sums import CounterSums
from llama_backend.server.engines.engine_status import EngineStatus
from llama_backend.server.engines.link import EngineLink
from llama_backend.server.engines.request_table import RequestTable
from llama_backend.server.engines.restarts import Restarts
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.server.engines.watched_process import WatchedProcess
from llama_backend.wire.ipc import (
    Accepted,
    ClearKVStates,
    Counted,
    Embedded,
    EngineConfig,
    Event,
    Failed,
    Ready,
    Refused,
    StepDone,
)

RELOAD_SECONDS = 1.0
"""Seconds after a failure from which on a request makes the supervisor try to load the model again."""
_STOP_SECONDS = 5.0
"""How long an engine may take to end its present step; one that is loading is killed at once."""


class Supervisor:
    """Runs the engines of one model, one after another.

    `requests` outlive each engine, and `status` is that of the present one.
    """

    def __init__(
        self, config: EngineConfig, process: EngineProcess | None = None, counters: CounterSums | None = None
    ) -> None:
        """`process` is an engine that was started already; `counters` go on from those of an earlier supervisor."""
        self._config = config
        self._link: EngineLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._failed_at = 0.0
        self.restarts = Restarts()
        self.requests = RequestTable()
        self.status = EngineStatus(counters or CounterSums())
        if process is not None:
            self._link = self._connected(process)

    def start(self) -> None:
        """Starts the engine in the background; `wait_ready` returns when it is ready."""
        self._task = asyncio.create_task(self._run(), name="supervisor")

    async def stop(self) -> None:
        """Ends the engine; requests that are still open fail."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self.requests.fail_all(Unavailable("the server is shutting down", retry_after=5))
        if self._link is not None:
            await self._link.stop(_STOP_SECONDS if self.status.ready else 0)

    def end_hung(self, reason: str) -> None:
        """Kills an engine that hangs; another one is started, as after any other death."""
        if self._link is not None:
            self._link.abort(reason)

    async def wait_ready(self, seconds: float) -> None:
        """Returns when requests can be taken; tries to load a model again that could not be loaded before.

        Raises as `EngineStatus.wait_ready`.
        """
        if self.status.state == "failed" and monotonic() - self._failed_at > RELOAD_SECONDS:
            self.status.change("loading", self.status.reason)
            self.start()
        await self.status.wait_ready(seconds)

    def clear_kv_states(self) -> None:
        """Drops all KV states: those of idle slots, in RAM and on disk."""
        if self._link is not None:
            self._link.send(ClearKVStates())

    async def _run(self) -> None:
        """Runs engines one after another, until one cannot load its model or too many have died."""
        while True:
            self.restarts.engine_started()
            try:
                link = self._link = self._link or self._connected(EngineProcess(self._config))
            except OSError as error:
                self._give_up(Failed(f"the engine cannot be started: {error.strerror or error}"))
                return
            reason = await self._follow(link)
            pause = self._pause(reason)
            if pause is None:
                return
            self.status.change("restarting", reason)
            await asyncio.sleep(pause)

    def _pause(self, reason: str) -> float | None:
        """Seconds until the next engine, after one that ended for `reason`; None where no other is started."""
        status = self.status
        if status.load_error or not status.was_ready:
            self._give_up(status.load_error or Failed(reason))
            return None
        pause = self.restarts.pause(was_ready=status.ready is not None)
        if pause is None:
            text = f"{self.restarts.useless_in_a_row} times in a row {reason}"
            self._give_up(Failed(text, EngineDied.code))
        return pause

    def _connected(self, process: EngineProcess) -> EngineLink:
        self.status.process = WatchedProcess(process.pid)
        return EngineLink(process)

    async def _follow(self, link: EngineLink) -> str:
        """Handles the events of one engine until it ends; returns how it ended."""
        self.status.engine_started()
        await link.follow(self._take)
        self._link = None
        suspects, reason = link.death()
        if suspects.all:
            self.restarts.note_use()
        self.status.engine_ended(reason)
        self.requests.engine_died(suspects, reason)
        return reason

    def _take(self, event: Event) -> None:
        match event:
            case Accepted() | Refused() | Counted() | Embedded():
                self.requests.take(event)
            case StepDone():
                self.status.take(event)
                self.requests.take(event)
                if event.outputs:
                    self.restarts.note_use()
            case Ready():
                self.status.take(event)
                if self._link is not None:
                    self.requests.engine_ready(self._link.send)
            case _:
                self.status.take(event)

    def _give_up(self, failure: Failed) -> None:
        """Fails all requests; the next engine is only started for a new request."""
        self._failed_at = monotonic()
        self.status.fail(failure)
        self.requests.fail_all(EngineDied(failure.reason, retry_after=2))
