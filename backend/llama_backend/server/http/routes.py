"""One handler a route: parse → admit → engine → answer."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from llama_backend.errors import Forbidden, InvalidRequest, ModelNotFound
from llama_backend.server.access.auth import is_unix
from llama_backend.server.http.body import parse
from llama_backend.server.http.completion import complete, resumed, unless_gone
from llama_backend.server.http.context import Call
from llama_backend.server.state import Server
from llama_backend.server.streaming.streams import key_of
from llama_backend.wire.api import ChatRequest, CompletionRequest, ModelList, TokenizeRequest, encode


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
        raise InvalidRequest("either messages or prompt is needed", param="messages")
    return await unless_gone(_counted(Call.of(request, server, body.model, None), body), request)


async def _counted(call: Call, body: TokenizeRequest) -> bytes:
    """The tokens of a request that is valid; it has its place among the others meanwhile."""
    with call.admitted():
        async with call.engine() as supervisor, call.deadline.waiting():
            found = await supervisor.count(
                body.messages, body.prompt, body.return_tokens, call.account, body.cache_salt
            )
            return encode(found)


async def models(request: Request) -> Response:
    """`GET /v1/models`."""
    return as_json(ModelList([model.info() for model in server_of(request).models.models]))


async def model(request: Request) -> Response:
    """`GET /v1/models/{name}`."""
    name = request.path_params["name"]
    found = [model for model in server_of(request).models.models if model.name == name]
    if not found:
        raise ModelNotFound(f"there is no model {name!r} here")
    return as_json(found[0].info())


async def status(request: Request) -> Response:
    """`GET /v1/status`."""
    return as_json(server_of(request).status())


async def clear_kv_states(request: Request) -> Response:
    """`DELETE /v1/kv-states`: drops what is kept of conversations; on the Unix socket only, since it is for all."""
    if not is_unix(request):
        raise Forbidden("KV states can be dropped over the Unix socket only")
    for loaded in server_of(request).models.loaded:
        loaded.supervisor.clear_kv_states()
    return Response(status_code=204)


def server_of(request: Request) -> Server:
    server = request.app.state.server
    assert isinstance(server, Server)
    return server


def as_json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(encode(body), status, headers, media_type="application/json")
