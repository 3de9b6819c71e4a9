"""One completion: admit → engine → answer, in one piece or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llama_backend.server.engines.pending import Ticket
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.server.http.context import Call
from llama_backend.server.http.responses import Shape
from llama_backend.server.request_metrics import Stopwatch
from llama_backend.server.state import Server, new_seed
from llama_backend.server.streaming.events import EventStream, gone
from llama_backend.server.streaming.streams import key_of, last_event, wanted
from llama_backend.wire.api import ChatRequest, CompletionRequest, SamplingParams

_OPENING_SECONDS = 10.0
"""After this long without a decision a stream is opened, and errors come in it."""
CLIENT_GONE = 499
"""The status of an answer that nobody reads any more (nginx's number)."""


async def complete(request: Request, server: Server, body: ChatRequest | CompletionRequest) -> ASGIApp:
    """The answer to a request that is valid."""
    run = _Run(Call.of(request, server, body.model, body.timeout), body)
    if body.stream:
        return await _stream(run, request, server)
    return await unless_gone(_collect(run), request)


class _Run:
    """One completion: its pieces, and how they are written."""

    def __init__(self, call: Call, body: ChatRequest | CompletionRequest) -> None:
        self._call = call
        self._body = body
        self._watch = Stopwatch(call.model.meter, call.account)
        seed = new_seed() if body.seed is None else body.seed
        is_chat = isinstance(body, ChatRequest)
        self._sampling = msgspec.structs.replace(body.sampling(), seed=seed)
        self.choices = body.choices
        self.shape = Shape(call.model.name, is_chat, seed, body.include_usage, body.choices)

    @asynccontextmanager
    async def ticket(self) -> AsyncIterator[Ticket]:
        """From admission to the end, with an accepted request; leaving early cancels the work."""
        call, deadline = self._call, self._call.deadline
        with self._watch, call.admitted(self.choices):
            async with deadline.waiting():
                sampling = await call.model.grammars.resolve(self._sampling, call.account)
            async with call.engine() as supervisor:
                ticket = self._submit(supervisor, sampling)
                try:
                    with deadline.watching(ticket):
                        await ticket.accepted()
                        yield ticket
                finally:
                    supervisor.release(ticket)

    def _submit(self, supervisor: Supervisor, sampling: SamplingParams) -> Ticket:
        body = self._body
        messages, prompt = (body.messages, None) if isinstance(body, ChatRequest) else (None, body.single)
        return supervisor.submit(
            sampling,
            messages,
            prompt,
            n=body.choices,
            top_logprobs=body.alternatives,
            store=body.store is not False,
            account=self._call.account,
            salt=body.cache_salt,
            observer=self._watch,
        )


async def unless_gone(answer: Coroutine[None, None, bytes], request: Request) -> Response:
    """An answer in one piece; if the client goes away before it is there, the work is dropped."""
    work = asyncio.create_task(answer)
    watcher = asyncio.create_task(gone(request.receive))
    try:
        await asyncio.wait({work, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return Response(work.result(), media_type="application/json")
        return Response(status_code=CLIENT_GONE)
    finally:
        for task in (work, watcher):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(work, watcher, return_exceptions=True)


async def _collect(run: _Run) -> bytes:
    async with run.ticket() as ticket:
        return run.shape.whole(await ticket.whole())


async def _stream(run: _Run, request: Request, server: Server) -> ASGIApp:
    """Opens the stream once the prompt is accepted, so that refusals still have their HTTP status."""
    events = _events(run)
    key = wanted(request)
    if key is not None:
        events = server.streams.open(key, events)
    first = asyncio.ensure_future(anext(events))
    watcher = asyncio.create_task(gone(request.receive))
    try:
        seconds = min(_OPENING_SECONDS, server.config.heartbeat)
        await asyncio.wait({first, watcher}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        first.cancel()
        raise
    finally:
        watcher.cancel()
    if first.done():
        first.result()
    return EventStream(events, first, server.config.heartbeat, server.streams.grace if key else None)


def resumed(request: Request, server: Server) -> ASGIApp:
    """The rest of an answer whose connection broke."""
    name, after = request.path_params["name"], last_event(request)
    events = server.streams.resume(key_of(request, name), after)
    return EventStream(events, asyncio.ensure_future(anext(events)), server.config.heartbeat, server.streams.grace)


async def _events(run: _Run) -> AsyncGenerator[bytes, None]:
    async with run.ticket() as ticket:
        yield run.shape.opening()
        async for piece in ticket.pieces():
            yield run.shape.event(piece, piece.id - ticket.number)
        yield run.shape.closing()
