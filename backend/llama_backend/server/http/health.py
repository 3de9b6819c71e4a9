"""Probes, as for Kubernetes: whether the server is alive, has started, and takes requests. They need no key."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.server.engines.liveness import can_answer, liveness_problem
from llama_backend.server.http.routes import as_json, server_of


async def livez(request: Request) -> Response:
    """200 unless there is a problem that only a restart of the server can solve."""
    server = server_of(request)
    problems = [liveness_problem(model.supervisor, server.config.stall) for model in server.models.loaded]
    problem = next(filter(None, problems), None)
    body = {"state": server.state} | ({"reason": problem} if problem else {})
    return as_json(body, 503 if problem else 200)


async def startupz(request: Request) -> Response:
    """200 once the model has been loaded for the first time."""
    return _answer(request, server_of(request).models.first.was_ready)


async def readyz(request: Request) -> Response:
    """200 while requests can be taken; an engine counts as ready once it has decoded a token."""
    server = server_of(request)
    engines = [model.supervisor for model in server.models.loaded if model.state == "ready"]
    can_compute = not engines or any(can_answer(engine, server.config.stall) for engine in engines)
    return _answer(request, server.state == "ready" and can_compute)


def _answer(request: Request, is_up: bool) -> Response:
    server = server_of(request)
    status = server.models.first.supervisor.status
    body = {"state": server.state, "progress": round(status.progress, 3), "reason": status.reason}
    return as_json(body) if is_up else as_json(body, 503, {"Retry-After": "2"})
