"""One completion, for a chat or a plain text: admission, engine, and the answer as a whole or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llama_backend.server.engines.pending import PendingCompletion
from llama_backend.server.http.context import RequestContext
from llama_backend.server.http.responses import ResponseWriter
from llama_backend.server.request_metrics import RequestTimer
from llama_backend.server.state import ServerState, new_seed
from llama_backend.server.streaming.events import EventStream, gone
from llama_backend.server.streaming.streams import key_of, last_event, wanted_key
from llama_backend.wire.api import ChatRequest, CompletionRequest, SamplingParams
from llama_backend.wire.ipc import Submit

_OPENING_SECONDS = 10.0
"""A stream is opened after so long, even if the request is not accepted yet; later errors are events in it."""
CLIENT_GONE = 499
"""The status of a response whose client has disconnected, as in nginx."""


async def complete(request: Request, server: ServerState, body: ChatRequest | CompletionRequest) -> ASGIApp:
    """The answer to a valid request."""
    completion = _Completion(RequestContext.of(request, server, body.model, body.timeout), body)
    if body.stream:
        return await _stream(completion, request, server)
    return await unless_gone(_collect(completion), request)


class _Completion:
    """One completion: the request to the engine, and the writer of its answers."""

    def __init__(self, context: RequestContext, body: ChatRequest | CompletionRequest) -> None:
        self._context = context
        self._body = body
        self._timer = RequestTimer(context.model.metrics, context.account)
        seed = new_seed() if body.seed is None else body.seed
        is_chat = isinstance(body, ChatRequest)
        self._sampling = msgspec.structs.replace(body.sampling(), seed=seed)
        self.writer = ResponseWriter(context.model.name, is_chat, seed, body.include_usage, body.choices)

    @asynccontextmanager
    async def accepted(self) -> AsyncIterator[PendingCompletion]:
        """The request once the engine has accepted it; it keeps its place in the queue until the block ends.

        Leaving the block early cancels the work. Raises the error of a request that is refused.
        """
        context = self._context
        with self._timer, context.admitted(self._body.choices):
            async with context.deadline.waiting():
                sampling = await context.model.grammars.resolve(self._sampling, context.account)
            async with context.engine() as requests:
                pending = PendingCompletion(self._engine_request(sampling), self._timer)
                with requests.opened(pending), context.deadline.watching(pending):
                    await pending.accepted()
                    yield pending

    def _engine_request(self, sampling: SamplingParams) -> Submit:
        body = self._body
        messages, prompt = (body.messages, None) if isinstance(body, ChatRequest) else (None, body.single)
        return Submit(
            sampling=sampling,
            messages=messages,
            prompt=prompt,
            n=body.choices,
            top_logprobs=body.alternatives,
            store=body.store is not False,
            account=self._context.account,
            scope=self._context.scope(body.cache_salt),
        )


async def unless_gone(answer: Coroutine[None, None, bytes], request: Request) -> Response:
    """A complete response; the work on it is cancelled if the client disconnects before it is done."""
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


async def _collect(completion: _Completion) -> bytes:
    async with completion.accepted() as pending:
        return completion.writer.whole(await pending.whole())


async def _stream(completion: _Completion, request: Request, server: ServerState) -> ASGIApp:
    """Opens the stream once the prompt is accepted, so that refusals still have their HTTP status."""
    events = _events(completion)
    key = wanted_key(request)
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


def resumed(request: Request, server: ServerState) -> ASGIApp:
    """The rest of an answer whose connection was broken."""
    name, after = request.path_params["name"], last_event(request)
    events = server.streams.resume(key_of(request, name), after)
    return EventStream(events, asyncio.ensure_future(anext(events)), server.config.heartbeat, server.streams.grace)


async def _events(completion: _Completion) -> AsyncGenerator[bytes, None]:
    writer = completion.writer
    async with completion.accepted() as pending:
        yield writer.opening()
        async for output in pending.outputs():
            yield writer.event(output, output.id - pending.number)
        yield writer.closing()
