"""Probes: whether the process lives, has started, and can take requests. They need no key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.server.engines.liveness import can_answer, trouble
from llama_backend.server.http.routes import as_json, server_of


async def livez(request: Request) -> Response:
    """200 as long as the server's loop turns and nothing is wrong that only a new process could mend."""
    server = server_of(request)
    troubles = [trouble(model.supervisor, server.config.stall) for model in server.models.loaded]
    found = next(filter(None, troubles), None)
    body = {"state": server.state} | ({"reason": found} if found else {})
    return as_json(body, 503 if found else 200)


async def startupz(request: Request) -> Response:
    """200 once the model was loaded for the first time."""
    return _answer(request, server_of(request).models.first.was_ready)


async def readyz(request: Request) -> Response:
    """200 while requests can be taken: an engine says that it is ready once it has decoded a token."""
    server = server_of(request)
    engines = [model.supervisor for model in server.models.loaded if model.state == "ready"]
    is_well = not engines or any(can_answer(engine, server.config.stall) for engine in engines)
    return _answer(request, server.state == "ready" and is_well)


def _answer(request: Request, is_well: bool) -> Response:
    server = server_of(request)
    supervisor = server.models.first.supervisor
    body = {"state": server.state, "progress": round(supervisor.progress, 3), "reason": supervisor.reason}
    return as_json(body) if is_well else as_json(body, 503, {"Retry-After": "2"})
