"""The ASGI application: the table of routes, authentication before each of them, and errors in OpenAI's format."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import ceil

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from llama_backend.errors import (
    BackendError,
    DeadlineExceeded,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RequestEndsEngine,
    Unavailable,
)
from llama_backend.server.access.origins import with_cors
from llama_backend.server.http import health, metrics_page, routes
from llama_backend.server.http.completion import CLIENT_GONE
from llama_backend.server.http.embeddings import embeddings
from llama_backend.server.http.routes import as_json, server_of
from llama_backend.server.state import ServerState
from llama_backend.wire.headers import SHOULD_RETRY

_SILENT = ("/v1/status", "/metrics")
"""Monitoring does not count as use of the server, so that it does not delay the end after idle time."""
_log = logging.getLogger("llama_backend.server")
Handler = Callable[[Request], Awaitable[ASGIApp]]


def make_app(server: ServerState) -> ASGIApp:
    """The application for a server's state."""
    handlers: list[tuple[str, str, Handler]] = [
        ("POST", "/v1/chat/completions", routes.chat_completions),
        ("POST", "/v1/completions", routes.completions),
        ("POST", "/v1/embeddings", embeddings),
        ("GET", "/v1/streams/{name}", routes.stream),
        ("DELETE", "/v1/streams/{name}", routes.stop_stream),
        ("POST", "/v1/tokenize", routes.tokenize),
        ("GET", "/v1/models", routes.models),
        ("GET", "/v1/models/{name:path}", routes.model),
        ("GET", "/v1/status", routes.status),
        ("DELETE", "/v1/kv-states", routes.clear_kv_states),
    ]
    probes = {"/livez": health.livez, "/startupz": health.startupz, "/readyz": health.readyz}
    if server.config.metrics_open:
        probes["/metrics"] = metrics_page.metrics
    else:
        handlers.append(("GET", "/metrics", metrics_page.metrics))
    app = Starlette(
        routes=[Route(path, Authenticated(handler), methods=[method]) for method, path, handler in handlers]
        + [Route(path, handler) for path, handler in probes.items()],
        exception_handlers={
            HTTPException: _http_error,
            BackendError: _backend_error,
            ClientDisconnect: _client_gone,
            Exception: _unknown_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.server = server
    return with_cors(app, server.config.allow_origins)


class Authenticated:
    """A handler that is called only for requests of a known account."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        server = server_of(request)
        request.state.account = account = server.authenticator.check(request)
        if scope["path"] not in _SILENT:
            server.admission.touch()
        with server.body_budget.opened(account) as request.state.body:
            answer = await self._answer(request)
            with suppress(asyncio.CancelledError):
                await answer(scope, receive, send)

    async def _answer(self, request: Request) -> ASGIApp:
        """The handler's answer; its task is cancelled only when the server ends."""
        try:
            return await self._handler(request)
        except asyncio.CancelledError:
            raise Unavailable("the server is shutting down", retry_after=5) from None


async def _backend_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, BackendError)
    server_of(request).errors[error.code] += 1
    headers = {"Retry-After": str(max(1, ceil(error.retry_after)))} if error.retry_after is not None else {}
    if isinstance(error, DeadlineExceeded | RequestEndsEngine):
        headers[SHOULD_RETRY] = "false"
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return as_json(error.to_wire(), error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kinds: dict[int, type[BackendError]] = {404: NotFound, 405: MethodNotAllowed}
    kind = kinds.get(error.status_code)
    text = f"{request.method} {request.scope['path']}: {error.detail}"
    body = (kind or InternalError)(text).to_wire()
    server_of(request).errors[(kind or InternalError).code] += 1
    return as_json(body, error.status_code, dict(error.headers or {}))


async def _client_gone(_request: Request, _error: Exception) -> Response:
    """The response to a client that disconnected before its body was complete; nobody reads it."""
    return Response(status_code=CLIENT_GONE)


async def _unknown_error(request: Request, error: Exception) -> Response:
    server_of(request).errors[InternalError.code] += 1
    _log.error("a request failed", exc_info=error)
    return as_json(InternalError("internal error").to_wire(), 500)
