"""One handler a route: parse → admit → engine → answer."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llama_backend.api import (
    ChatRequest,
    CompletionRequest,
    ModelList,
    SamplingParams,
    TokenizeRequest,
    encode,
)
from llama_backend.errors import BodyTooLarge, Forbidden, InvalidRequest, ModelNotFound
from llama_backend.server.answers import Shape
from llama_backend.server.auth import is_unix
from llama_backend.server.backend import Server, new_seed
from llama_backend.server.events import EventStream, gone
from llama_backend.server.meter import Stopwatch
from llama_backend.server.ticket import Ticket

_MAX_BODY = 4 * 1024 * 1024
_OPENING_SECONDS = 10.0
"""After this long without a decision a stream is opened, and errors come in it."""
CLIENT_GONE = 499
"""The status of an answer that nobody reads any more (nginx's number)."""
_WAIT = re.compile(r"\bwait=(\d{1,6})\b")

_PATH = re.compile(r"`\$\.?([^`]*)`")
_MISSING = re.compile(r"missing required field `([^`]*)`")

Parsed = TypeVar("Parsed", bound=msgspec.Struct)


async def chat_completions(request: Request) -> ASGIApp:
    """`POST /v1/chat/completions`."""
    server = server_of(request)
    body = await _parse(request, ChatRequest)
    return await _complete(request, server, body)


async def completions(request: Request) -> ASGIApp:
    """`POST /v1/completions`."""
    server = server_of(request)
    body = await _parse(request, CompletionRequest)
    return await _complete(request, server, body)


async def tokenize(request: Request) -> Response:
    """`POST /v1/tokenize`: the exact number of prompt tokens."""
    server = server_of(request)
    body = await _parse(request, TokenizeRequest)
    server.check_model(body.model)
    if (body.messages is None) == (body.prompt is None):
        raise InvalidRequest("either messages or prompt is needed", param="messages")
    await server.supervisor.wait_ready(_patience(request))
    return as_json(await server.supervisor.count(body.messages, body.prompt, body.return_tokens))


async def models(request: Request) -> Response:
    """`GET /v1/models`."""
    return as_json(ModelList([server_of(request).model_info()]))


async def model(request: Request) -> Response:
    """`GET /v1/models/{name}`."""
    info = server_of(request).model_info()
    if request.path_params["name"] != info.id:
        raise ModelNotFound(f"there is no model {request.path_params['name']!r} here")
    return as_json(info)


async def status(request: Request) -> Response:
    """`GET /v1/status`."""
    return as_json(server_of(request).status())


async def forget(request: Request) -> Response:
    """`DELETE /v1/kv-states`: drops what is kept of conversations; on the Unix socket only, since it is for all."""
    if not is_unix(request):
        raise Forbidden("KV states can be dropped over the Unix socket only")
    server_of(request).supervisor.forget()
    return Response(status_code=204)


def server_of(request: Request) -> Server:
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


def as_json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(body), status, headers, media_type="application/json")


async def _parse(request: Request, kind: type[Parsed]) -> Parsed:
    """The body as `kind`; raises InvalidRequest that names the field, or BodyTooLarge."""
    try:
        parsed = msgspec.json.decode(await _read(request), type=kind)
        if isinstance(parsed, SamplingParams):
            parsed.validate()
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), param=_field(str(error))) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error
    return parsed


def _field(message: str) -> str | None:
    """The field that msgspec's message is about, such as `messages[0].role`."""
    found = (_PATH.search(message), _MISSING.search(message))
    return ".".join(match[1] for match in found if match and match[1]) or None


async def _read(request: Request) -> bytes:
    length = request.headers.get("content-length", "0")
    size = int(length) if length.isdigit() else 0
    body = bytearray()
    if size <= _MAX_BODY:
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                break
    if max(size, len(body)) > _MAX_BODY:
        raise BodyTooLarge(f"the body has more than {_MAX_BODY} bytes")
    return bytes(body)


def _patience(request: Request) -> float:
    """Seconds that a request is willing to wait for a model that is loading (RFC 7240, `Prefer: wait`)."""
    match = _WAIT.search(request.headers.get("prefer", ""))
    return float(match[1]) if match else 0.0


async def _complete(request: Request, server: Server, body: ChatRequest | CompletionRequest) -> ASGIApp:
    server.check_model(body.model)
    server.check_open()
    run = _Run(server, body, _patience(request))
    return await _stream(run, request) if body.stream else await _whole(run, request)


class _Run:
    """One completion: its pieces, and how they are written."""

    def __init__(self, server: Server, body: ChatRequest | CompletionRequest, patience: float) -> None:
        self._server = server
        self._body = body
        self._patience = patience
        self._watch = Stopwatch(server.meter)
        seed = new_seed() if body.seed is None else body.seed
        is_chat = isinstance(body, ChatRequest)
        self._sampling = msgspec.structs.replace(body.sampling(), seed=seed)
        self.choices = body.choices
        self.shape = Shape(server.config.model, is_chat, seed, body.include_usage, body.choices)

    @asynccontextmanager
    async def ticket(self) -> AsyncIterator[Ticket]:
        """From admission to the end, with an accepted request; leaving early cancels the work."""
        server = self._server
        with self._watch, server.admission.enter(server.slots, self.choices):
            sampling = await server.grammars.resolve(self._sampling)
            await server.supervisor.wait_ready(self._patience)
            ticket = self._submit(sampling)
            try:
                await ticket.accepted()
                yield ticket
            finally:
                server.supervisor.release(ticket)

    def _submit(self, sampling: SamplingParams) -> Ticket:
        body = self._body
        messages, prompt = (body.messages, None) if isinstance(body, ChatRequest) else (None, body.single)
        return self._server.supervisor.submit(
            sampling,
            messages,
            prompt,
            n=body.choices,
            top_logprobs=body.alternatives,
            store=body.store is not False,
            observer=self._watch,
        )


async def _whole(run: _Run, request: Request) -> Response:
    """The answer in one piece; if the client goes away before it is there, the work is dropped."""
    work = asyncio.create_task(_collect(run))
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


async def _stream(run: _Run, request: Request) -> ASGIApp:
    """Opens the stream once the prompt is accepted, so that refusals still have their HTTP status."""
    heartbeat = server_of(request).config.heartbeat
    events = _events(run)
    first = asyncio.ensure_future(anext(events))
    watcher = asyncio.create_task(gone(request.receive))
    try:
        seconds = min(_OPENING_SECONDS, heartbeat)
        await asyncio.wait({first, watcher}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    except asyncio.CancelledError:
        first.cancel()
        raise
    finally:
        watcher.cancel()
    if first.done():
        first.result()
    return EventStream(events, first, heartbeat)


async def _events(run: _Run) -> AsyncGenerator[bytes, None]:
    async with run.ticket() as ticket:
        yield run.shape.opening()
        async for piece in ticket.pieces():
            yield run.shape.event(piece, piece.id - ticket.number)
        yield run.shape.closing()
