"""Keeps one engine running: starts it, passes requests and answers, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from time import monotonic

from llama_backend.account import LOCAL, Account, scope_of
from llama_backend.errors import EngineDied, Unavailable, from_wire
from llama_backend.server.engines.counter_sums import Totals
from llama_backend.server.engines.heartbeat import Pulse
from llama_backend.server.engines.link import EngineChild
from llama_backend.server.engines.pending import Observer, Ticket
from llama_backend.server.engines.pending_count import CountTicket
from llama_backend.server.engines.pending_embedding import EmbeddingTicket
from llama_backend.server.engines.request_table import Ledger
from llama_backend.server.engines.restarts import Restarts
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.wire.api import ChatMessage, SamplingParams, TokenCount
from llama_backend.wire.ipc import (
    ClearKVStates,
    Count,
    Embed,
    EngineConfig,
    EngineStats,
    Event,
    Failed,
    Loading,
    Ready,
    StepDone,
    StoreChanged,
    Submit,
    Tuned,
)
from llama_backend.wire.status import KVStoreStatus, State, TuningStatus

_log = logging.getLogger("llama_backend.server")
_RELOAD_SECONDS = 1.0
"""An engine that could not be had is tried again for a request that comes this long after."""
_STOP_SECONDS = 5.0
"""An engine ends after the step that it is in; one that loads may be killed."""
_STABLE_SECONDS = 10.0
"""An engine that lived as long was of use, whether it was asked for anything or not."""


class Supervisor:
    """The engine of one model, across its restarts."""

    def __init__(self, config: EngineConfig, child: EngineChild | None = None, totals: Totals | None = None) -> None:
        self._config = config
        self._child: EngineChild | None = child
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._restarts = Restarts()
        self._load_error: Failed | None = None
        self._failure: Failed | None = None
        """Why there is no engine, until there is one again."""
        self._failed_at = 0.0
        self._hang: str | None = None
        """Why the present engine was killed."""
        self._was_used = False
        """The present engine has brought a part of an answer, or died at work on one."""
        self.ledger = Ledger()
        self.pulse = Pulse()
        self.state: State = "loading"
        self.progress = 0.0
        self.reason: str | None = None
        self.ready: Ready | None = None
        self.was_ready = False
        self.had_gpu = False
        self.last_step = monotonic()
        """When the engine ended a step, or became ready."""
        self.restarts = 0
        self.running = 0
        self.waiting = 0
        self.totals = totals or Totals()
        self.kv_store: KVStoreStatus | None = None
        self.tuning: TuningStatus | None = None

    @property
    def active(self) -> int:
        """Requests that have not been released."""
        return len(self.ledger)

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="supervisor")

    async def stop(self) -> None:
        """Ends the engine; requests that are still there fail."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self.ledger.fail_all(Unavailable("the server is shutting down", retry_after=5))
        if self._child is not None:
            await self._child.kill(patience=_STOP_SECONDS if self.ready else 0)

    def end_hung(self, reason: str) -> None:
        """Kills an engine that does not go on; another one follows it as after any other death."""
        if self._child is not None and self._hang is None:
            self._hang = reason
            self._child.abort()

    async def wait_ready(self, seconds: float) -> None:
        """Returns when requests can be taken.

        Raises Unavailable where that takes longer than `seconds`, with the reason where it failed the last time.
        """
        self._retry_failed()
        end = monotonic() + seconds
        while self.state != "ready":
            left = end - monotonic()
            if self._failure is not None and (self.state == "failed" or left <= 0):
                raise from_wire({"error": {"message": self._failure.reason, "code": self._failure.code}}, 503)
            if left <= 0:
                raise Unavailable(f"the model is {self.state}", retry_after=2, progress=round(self.progress, 3))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), left)

    def submit(
        self,
        sampling: SamplingParams,
        messages: list[ChatMessage] | None,
        prompt: str | list[int] | None,
        *,
        n: int = 1,
        top_logprobs: int | None = None,
        store: bool = True,
        account: Account = LOCAL,
        salt: str | None = None,
        observer: Observer | None = None,
    ) -> Ticket:
        """Hands a request for `n` answers to the engine; its ticket must be given to `release` in the end."""
        ticket = Ticket(self.ledger.numbers(n)[0], n, observer)
        request = Submit(
            id=ticket.number,
            sampling=sampling,
            messages=messages,
            prompt=prompt,
            n=n,
            top_logprobs=top_logprobs,
            store=store,
            account=account,
            scope=self._scope(account, salt),
        )
        self.ledger.open(ticket, request)
        return ticket

    def embed(self, texts: list[str | list[int]], dimensions: int | None, account: Account) -> EmbeddingTicket:
        """Hands a request for embeddings to the engine; its ticket must be given to `release` in the end."""
        ticket = EmbeddingTicket(self.ledger.numbers()[0], len(texts))
        self.ledger.open(ticket, Embed(id=ticket.number, inputs=texts, dimensions=dimensions, account=account))
        return ticket

    async def count(
        self,
        messages: list[ChatMessage] | None,
        prompt: str | None,
        return_tokens: bool,
        account: Account = LOCAL,
        salt: str | None = None,
    ) -> TokenCount:
        """How many tokens a conversation or a text has."""
        ticket = CountTicket(self.ledger.numbers()[0])
        request = Count(
            id=ticket.number,
            messages=messages,
            prompt=prompt,
            return_tokens=return_tokens,
            account=account,
            scope=self._scope(account, salt),
        )
        self.ledger.open(ticket, request)
        try:
            found = await ticket.counted()
        finally:
            self.release(ticket)
        left = found.context - found.count
        return TokenCount(count=found.count, context=found.context, remaining=left, fits=left > 0, tokens=found.tokens)

    def _scope(self, account: Account, salt: str | None) -> str:
        return scope_of(account, self._config.kv_sharing == "all", salt)

    def release(self, ticket: Ticket) -> None:
        """Forgets a request; answers that have not ended are cancelled."""
        self.ledger.close(ticket)

    def clear_kv_states(self) -> None:
        """Drops all KV states, in slots that are idle, in RAM and on disk."""
        if self._child is not None:
            self._child.send(ClearKVStates())

    def _set_state(self, state: State, reason: str | None = None) -> None:
        self.state, self.reason = state, reason
        self._changed.set()
        self._changed = asyncio.Event()
        _log.info("engine: %s%s", state, f": {reason}" if reason else "")

    def _give_up(self, failure: Failed) -> None:
        """There is no engine until a request asks for one."""
        self._failed_at, self._failure = monotonic(), failure
        self._set_state("failed", failure.reason)
        self.ledger.fail_all(EngineDied(failure.reason, retry_after=2))

    def _retry_failed(self) -> None:
        if self.state == "failed" and monotonic() - self._failed_at > _RELOAD_SECONDS:
            self._set_state("loading", self.reason)
            self.start()

    async def _run(self) -> None:
        """Runs engines one after another, until one cannot load its model or too many have died."""
        while True:
            begin = monotonic()
            try:
                self._child = self._child or EngineChild(EngineProcess(self._config))
            except OSError as error:
                self._give_up(Failed(f"the engine cannot be started: {error.strerror or error}"))
                return
            reason = await self._follow(self._child)
            if self._load_error or not self.was_ready:
                self._give_up(self._load_error or Failed(reason))
                return
            is_stable = self.ready is not None and monotonic() - begin > _STABLE_SECONDS
            pause = self._restarts.pause(self._was_used or is_stable)
            if pause is None:
                self._give_up(Failed(f"{self._restarts.in_a_row} times in a row {reason}", EngineDied.code))
                return
            self.restarts += 1
            self._set_state("restarting", reason)
            await asyncio.sleep(pause)

    async def _follow(self, child: EngineChild) -> str:
        """Takes in all that one engine says; returns how it ended."""
        self.ready, self._load_error, self._was_used, self._hang = None, None, False, None
        self.progress = 0.0
        self.pulse.beat()
        await child.follow(self._take)
        self._child = None
        self.running = self.waiting = 0
        self.totals.close()
        reason = self._death(child)
        if self.state == "ready":
            self._set_state("restarting", reason)
        suspects = child.suspects()
        self._was_used = self._was_used or bool(suspects.all)
        self.ledger.engine_died(suspects, reason)
        return reason

    def _death(self, child: EngineChild) -> str:
        if self._hang is not None:
            return f"the engine was ended: {self._hang}"
        last = child.last_lines[-1] if child.last_lines else ""
        return f"the engine ended with {child.exit_status}" + (f": {last}" if last else "")

    def _take(self, event: Event) -> None:
        match event:
            case StepDone():
                self.running, self.waiting = event.running, event.waiting
                self._was_used = self._was_used or bool(event.outputs)
                self.last_step = monotonic()
                self.ledger.take(event)
            case EngineStats():
                self.totals.take(event)
            case Loading(progress):
                self.progress = progress
                self.pulse.beat()
            case Ready():
                self._take_ready(event)
            case StoreChanged(status):
                self.kv_store = status
            case Tuned(tuning):
                self.tuning = tuning
            case Failed():
                self._load_error = event
            case _:
                self.ledger.take(event)

    def _take_ready(self, ready: Ready) -> None:
        self.ready, self.was_ready, self.progress, self.tuning = ready, True, 1.0, ready.tuning
        self.had_gpu = self.had_gpu or ready.gpu_layers != 0
        self.last_step = monotonic()
        self._failure = None
        self._set_state("ready")
        if self._child is not None:
            self.ledger.engine_ready(self._child.send)
