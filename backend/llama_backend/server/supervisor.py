"""Keeps one engine running: starts it, passes requests and answers, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from itertools import count
from time import monotonic
from typing import Any

from llama_backend.account import LOCAL, Account, scope_of
from llama_backend.api import ChatMessage, SamplingParams, TokenCount
from llama_backend.errors import BackendError, EngineDied, InvalidRequest, Unavailable, from_wire
from llama_backend.guard import Suspects
from llama_backend.ipc import (
    Accepted,
    Cancel,
    Count,
    Counted,
    Embed,
    Embedded,
    EngineConfig,
    Event,
    Failed,
    Forget,
    Loading,
    Ready,
    Refused,
    Stats,
    StepDone,
    StoreChanged,
    Submit,
    Tuned,
)
from llama_backend.server.child import EngineChild
from llama_backend.server.embedding_ticket import EmbeddingTicket
from llama_backend.server.engine_process import EngineProcess
from llama_backend.server.ticket import Observer, Ticket
from llama_backend.server.totals import Totals
from llama_backend.status import KVStoreStatus, State, TuningStatus

_log = logging.getLogger("llama_backend.server")
_RELOAD_SECONDS = 1.0
"""A model that could not be loaded is tried again for a request that comes this long after."""
_STOP_SECONDS = 5.0
"""An engine ends after the step that it is in; one that loads may be killed."""
_MOST_DEATHS = 2
"""A request that was in the batch when so many engines died is not given to another."""
_STABLE_SECONDS = 10.0
_BACKOFF_SECONDS = (0.0, 0.5, 2.0, 5.0, 10.0)
"""Pauses before restarts of an engine that keeps dying young, without having answered anything."""


class Supervisor:
    """The engine of one model, across its restarts."""

    def __init__(self, config: EngineConfig, child: EngineChild | None = None, totals: Totals | None = None) -> None:
        self._config = config
        self._child: EngineChild | None = child
        self._task: asyncio.Task[None] | None = None
        self._numbers = count(1)
        self._tickets: dict[int, Ticket] = {}
        self._requests: dict[int, Submit | Embed] = {}
        self._counts: dict[int, asyncio.Future[Counted]] = {}
        self._changed = asyncio.Event()
        self._load_error: Failed | None = None
        self._failure: Failed | None = None
        """Why the last engine could not load its model; None once one was ready."""
        self._failed_at = 0.0
        self._delivered = False
        """The present engine has brought a part of an answer."""
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
        """Requests that have not ended."""
        return len(self._tickets)

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
        self._fail_all(Unavailable("the server is shutting down", retry_after=5))
        if self._child is not None:
            await self._child.kill(patience=_STOP_SECONDS if self.ready else 0)

    async def wait_ready(self, seconds: float) -> None:
        """Returns when requests can be taken; raises Unavailable where that takes longer than `seconds`.

        Where the model could not be loaded that is the error, also while it is tried again.
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
        numbers = [next(self._numbers) for _ in range(n)]
        ticket = Ticket(numbers[0], n, observer)
        self._tickets |= dict.fromkeys(numbers, ticket)
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
        self._requests[ticket.number] = request
        self._send(request)
        return ticket

    def embed(self, texts: list[str | list[int]], dimensions: int | None, account: Account) -> EmbeddingTicket:
        """Hands a request for embeddings to the engine; its ticket must be given to `release` in the end."""
        request = Embed(id=next(self._numbers), inputs=texts, dimensions=dimensions, account=account)
        ticket = EmbeddingTicket(request.id, len(texts))
        self._tickets[request.id] = ticket
        self._requests[request.id] = request
        self._send(request)
        return ticket

    def release(self, ticket: Ticket) -> None:
        """Forgets a request; answers that have not ended are cancelled."""
        self._requests.pop(ticket.number, None)
        for number in ticket.numbers:
            if self._tickets.pop(number, None) is not None and number in ticket.unfinished:
                self._send(Cancel(number))

    def forget(self) -> None:
        """Drops all KV states, in slots that are idle, in RAM and on disk."""
        self._send(Forget())

    async def count(
        self,
        messages: list[ChatMessage] | None,
        prompt: str | None,
        return_tokens: bool,
        account: Account = LOCAL,
        salt: str | None = None,
    ) -> TokenCount:
        number = next(self._numbers)
        future: asyncio.Future[Counted] = asyncio.get_running_loop().create_future()
        self._counts[number] = future
        scope = self._scope(account, salt)
        self._send(Count(id=number, messages=messages, prompt=prompt, return_tokens=return_tokens, scope=scope))
        try:
            found = await future
        finally:
            self._counts.pop(number, None)
        left = found.context - found.count
        return TokenCount(count=found.count, context=found.context, remaining=left, fits=left > 0, tokens=found.tokens)

    def _scope(self, account: Account, salt: str | None) -> str:
        return scope_of(account, self._config.kv_sharing == "all", salt)

    def _send(self, command: Submit | Cancel | Count | Embed | Forget) -> None:
        if self._child is not None:
            self._child.send(command)

    def _set_state(self, state: State, reason: str | None = None) -> None:
        self.state, self.reason = state, reason
        self._changed.set()
        self._changed = asyncio.Event()
        _log.info("engine: %s%s", state, f": {reason}" if reason else "")

    def _set_failed(self, failure: Failed) -> None:
        self._failed_at, self._failure = monotonic(), failure
        self._set_state("failed", failure.reason)

    def _retry_failed(self) -> None:
        if self.state == "failed" and monotonic() - self._failed_at > _RELOAD_SECONDS:
            self._set_state("loading", self.reason)
            self.start()

    async def _run(self) -> None:
        """Runs engines one after another, until one cannot load its model."""
        died_young = 0
        while True:
            begin = monotonic()
            try:
                self._child = self._child or EngineChild(EngineProcess(self._config))
            except OSError as error:
                self._set_failed(Failed(f"the engine cannot be started: {error.strerror or error}"))
                self._fail_all(EngineDied(self.reason or "", retry_after=2))
                return
            if not await self._follow(self._child):
                return
            is_old = self._delivered or monotonic() - begin > _STABLE_SECONDS
            died_young = 0 if is_old else died_young + 1
            await asyncio.sleep(_BACKOFF_SECONDS[min(died_young, len(_BACKOFF_SECONDS)) - 1] if died_young else 0)

    async def _follow(self, child: EngineChild) -> bool:
        """Takes in all that one engine says; returns whether another one should follow it."""
        self.ready, self._load_error, self._delivered = None, None, False
        await child.follow(self._take)
        loaded = self.ready is not None
        self._child = None
        self.running = self.waiting = 0
        self.totals.close()
        reason = self._death(child)
        if loaded:
            self.restarts += 1
            self.progress = 0.0
            self._set_state("restarting", reason)
            self._fail_some(child.suspects(), EngineDied(reason, retry_after=2))
        else:
            self._set_failed(self._load_error or Failed(reason))
            self._fail_all(EngineDied(reason, retry_after=2))
        return loaded

    def _fail_some(self, suspects: Suspects, error: EngineDied) -> None:
        """After the death of an engine: fails those whom no other engine may or can answer, and keeps the rest.

        Those are the one whose grammar was at work, those who have read a part, and those in the batch for the second
        time. `_take` hands the others to the next engine.
        """
        for number in self._counts:
            self._fail(number, error)
        for ticket in set(self._tickets.values()):
            ticket.deaths += not suspects.batch.isdisjoint(ticket.numbers)
            if suspects.grammar in ticket.numbers:
                ticket.fail(InvalidRequest("grammar: llama.cpp ended on it", param="grammar"))
            elif ticket.is_read or ticket.deaths >= _MOST_DEATHS:
                ticket.fail(error)
            elif not ticket.finished:
                ticket.restart()

    @staticmethod
    def _death(child: EngineChild) -> str:
        last = child.last_lines[-1] if child.last_lines else ""
        return f"the engine ended with {child.exit_status}" + (f": {last}" if last else "")

    def _take(self, event: Event) -> None:
        match event:
            case StepDone():
                self.running, self.waiting = event.running, event.waiting
                self._delivered = self._delivered or bool(event.pieces)
                self.last_step = now = monotonic()
                for piece in event.pieces:
                    if ticket := self._tickets.get(piece.id):
                        ticket.deliver(piece, now)
            case Stats():
                self.totals.take(event)
            case Accepted(number, prompt_tokens):
                if ticket := self._tickets.get(number):
                    ticket.accept(prompt_tokens)
            case Refused():
                self._refuse(event)
            case Embedded():
                if isinstance(ticket := self._tickets.get(event.id), EmbeddingTicket):
                    ticket.put(event)
            case Counted():
                if (future := self._counts.get(event.id)) and not future.done():
                    future.set_result(event)
            case Loading(progress):
                self.progress = progress
            case Ready():
                self.ready, self.was_ready, self.progress, self.tuning = event, True, 1.0, event.tuning
                self.had_gpu = self.had_gpu or event.gpu_layers != 0
                self.last_step = monotonic()
                self._failure = None
                self._set_state("ready")
                self._send_again()
            case StoreChanged(status):
                self.kv_store = status
            case Tuned(tuning):
                self.tuning = tuning
            case Failed():
                self._load_error = event

    def _send_again(self) -> None:
        """Hands the requests that another engine left unanswered to this one."""
        for number, request in self._requests.items():
            if number in self._tickets and not self._tickets[number].finished:
                self._send(request)

    def _refuse(self, refused: Refused) -> None:
        error: dict[str, Any] = {"message": refused.message, "code": refused.code, "param": refused.param}
        error |= {"prompt_tokens": refused.prompt_tokens, "context": refused.context}
        self._fail(refused.id, from_wire({"error": error}, 400))

    def _fail(self, number: int, error: BackendError) -> None:
        if ticket := self._tickets.get(number):
            ticket.fail(error)
        if (future := self._counts.get(number)) and not future.done():
            future.set_exception(error)

    def _fail_all(self, error: BackendError) -> None:
        for number in [*self._tickets, *self._counts]:
            self._fail(number, error)
