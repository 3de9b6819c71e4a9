"""The handlers of the routes for completions, streams, token counts, models, status and KV states."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llama_backend.errors import Forbidden, InvalidRequest, ModelNotFound
from llama_backend.server.access.auth import is_unix
from llama_backend.server.engines.pending import PendingCount
from llama_backend.server.http.body import parse
from llama_backend.server.http.completion import complete, resumed, unless_gone
from llama_backend.server.http.context import RequestContext
from llama_backend.server.state import ServerState
from llama_backend.server.streaming.streams import key_of
from llama_backend.wire.api import ChatRequest, CompletionRequest, ModelList, TokenCount, TokenizeRequest, encode
from llama_backend.wire.ipc import Count, Counted


async def chat_completions(request: Request) -> ASGIApp:
    """`POST /v1/chat/completions`."""
    server = server_of(request)
    body = await parse(request, ChatRequest)
    return await complete(request, server, body)


async def completions(request: Request) -> ASGIApp:
    """`POST /v1/completions`."""
    server = server_of(request)
    body = await parse(request, CompletionRequest)
    return await complete(request, server, body)


async def stream(request: Request) -> ASGIApp:
    """`GET /v1/streams/{name}`: the events of a resumable answer that come after `Last-Event-ID`."""
    return resumed(request, server_of(request))


async def stop_stream(request: Request) -> Response:
    """`DELETE /v1/streams/{name}`: stops a resumable answer."""
    await server_of(request).streams.stop(key_of(request, request.path_params["name"]))
    return Response(status_code=204)


async def tokenize(request: Request) -> Response:
    """`POST /v1/tokenize`: the exact number of prompt tokens."""
    server = server_of(request)
    body = await parse(request, TokenizeRequest)
    if (body.messages is None) == (body.prompt is None):
        raise InvalidRequest("give either messages or prompt, and not both", param="messages")
    context = RequestContext.of(request, server, body.model, None)
    engine_request = Count(
        messages=body.messages,
        prompt=body.prompt,
        return_tokens=body.return_tokens,
        account=context.account,
        scope=context.scope(body.cache_salt),
    )
    return await unless_gone(_counted(context, engine_request), request)


async def _counted(context: RequestContext, engine_request: Count) -> bytes:
    """The body of the response to a valid request, which takes a place in the queue like all others."""
    with context.admitted():
        async with context.engine() as requests, context.deadline.waiting():
            with requests.opened(PendingCount(engine_request)) as pending:
                return encode(_token_count(await pending.counted()))


def _token_count(found: Counted) -> TokenCount:
    left = found.context - found.count
    return TokenCount(count=found.count, context=found.context, remaining=left, fits=left > 0, tokens=found.tokens)


async def models(request: Request) -> Response:
    """`GET /v1/models`."""
    return as_json(ModelList([model.info() for model in server_of(request).models.models]))


async def model(request: Request) -> Response:
    """`GET /v1/models/{name}`."""
    name = request.path_params["name"]
    found = [model for model in server_of(request).models.models if model.name == name]
    if not found:
        raise ModelNotFound(f"there is no model {name!r} here; GET /v1/models lists those that are")
    return as_json(found[0].info())


async def status(request: Request) -> Response:
    """`GET /v1/status`."""
    return as_json(server_of(request).status())


async def clear_kv_states(request: Request) -> Response:
    """`DELETE /v1/kv-states`: drops the KV states of all accounts; that is only allowed over the Unix socket."""
    if not is_unix(request):
        raise Forbidden("KV states can be dropped over the Unix socket only, on the server's own machine")
    for served in server_of(request).models.loaded:
        served.supervisor.clear_kv_states()
    return Response(status_code=204)


def server_of(request: Request) -> ServerState:
    server = request.app.state.server
    assert isinstance(server, ServerState)
    return server


def as_json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(body), status, headers, media_type="application/json")
