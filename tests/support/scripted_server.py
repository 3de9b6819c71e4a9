"""A backend that answers from a script: a real HTTP server without a model, on a Unix socket or a TCP port."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = "scripted"
CONTEXT = 4096


@dataclass(frozen=True)
class Script:
    """How one chat completion goes."""

    pieces: tuple[str, ...] = ("Hello", ", ", "world", "!")
    delay: float = 0.0
    """Seconds before each piece."""
    finish_reason: str = "stop"
    status: int = 200
    error: dict[str, Any] | None = None
    """OpenAI's error object: the whole response where `status` is not 200, or else an event after the pieces."""
    breaks: bool = False
    """Whether the connection ends after the pieces, without the end of the answer."""


@dataclass
class ScriptedServer:
    """Answers each request with the next script, or with the default one; as a context it listens.

    `requests` has the bodies of the chat completions; `broken_off` counts those whose client went away.
    """

    path: Path | None = None
    """The Unix socket to listen on; None is TCP."""
    model: str = MODEL
    others: list[str] = field(default_factory=list)
    """Other models that requests may name."""
    pid: int = 1
    """The process id in its status."""
    active: int = 0
    """Open requests in its status."""
    has_status: bool = True
    """Whether it has the route `/v1/status`, which other servers do not have."""
    is_other_kind: bool = False
    """Whether it behaves like vLLM: only OpenAI's routes and fields, and strict about the model's name."""
    scripts: deque[Script] = field(default_factory=deque)
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    sent: int = 0
    """Pieces of all answers."""
    broken_off: int = 0
    cleared: int = 0
    """How often it was asked to clear KV states."""
    url: str = ""

    def enqueue(self, *pieces: str, **how: Any) -> None:
        """Adds the script for the next request."""
        self.scripts.append(Script(tuple(pieces), **how))

    def __enter__(self) -> Self:
        self._socket = self._bind()
        routes = [Route("/v1/chat/completions", self._chat, methods=["POST"]), Route("/v1/models", self._models)]
        if not self.is_other_kind:
            routes.append(Route("/v1/tokenize", self._tokenize, methods=["POST"]))
            routes.append(Route("/v1/kv-states", self._clear_kv_states, methods=["DELETE"]))
        if self.has_status and not self.is_other_kind:
            routes.append(Route("/v1/status", self._status))
        config = uvicorn.Config(Starlette(routes=routes), log_level="critical", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not self._server.started:
            time.sleep(0.001)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()
        if self.path:
            self.path.unlink(missing_ok=True)

    def _bind(self) -> socket.socket:
        if self.path is None:
            bound = socket.create_server(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{bound.getsockname()[1]}"
            return bound
        bound = socket.socket(socket.AF_UNIX)
        bound.bind(str(self.path))
        bound.listen()
        return bound

    async def _chat(self, request: Request) -> Response:
        self.requests.append(await request.json())
        self.keys.append(request.headers.get("authorization"))
        if self.is_other_kind and self.requests[-1].get("model") != self.model:
            error = {"message": "The model does not exist.", "type": "NotFoundError", "param": None, "code": 404}
            return JSONResponse({"object": "error", "error": error}, 404)
        script = self.scripts.popleft() if self.scripts else Script()
        if script.status != 200:
            return JSONResponse({"error": script.error}, script.status)
        return StreamingResponse(self._events(script), media_type="text/event-stream")

    async def _events(self, script: Script) -> AsyncIterator[bytes]:
        try:
            for piece in script.pieces:
                await asyncio.sleep(script.delay)
                yield _chunk(choices=[_choice({"content": piece})])
                self.sent += 1
        except (asyncio.CancelledError, GeneratorExit):
            self.broken_off += 1
            raise
        if script.breaks:
            return
        if script.error:
            yield _event({"error": script.error})
            return
        facts = {} if self.is_other_kind else {"timings": {"predicted_n": len(script.pieces)}, "seed": 7}
        yield _chunk(choices=[_choice({}, script.finish_reason)], **facts)
        yield _chunk(choices=[], usage=_usage(len(script.pieces)))
        yield b"data: [DONE]\n\n"

    async def _tokenize(self, request: Request) -> Response:
        body = await request.json()
        texts = [str(message["content"]) for message in body.get("messages") or []]
        count = sum(len(text.split()) for text in [*texts, body.get("prompt") or ""])
        remaining = CONTEXT - count
        return JSONResponse({"count": count, "context": CONTEXT, "remaining": remaining, "fits": remaining > 0})

    async def _models(self, _: Request) -> Response:
        if self.is_other_kind:
            theirs = {"id": self.model, "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 4096}
            return JSONResponse({"object": "list", "data": [theirs | {"parent": None, "permission": [{}]}]})
        meta = {"context": CONTEXT, "size": 92_000_000, "quantization": "Q4_1", "architecture": "llama"}
        return JSONResponse({"object": "list", "data": [{"id": self.model, "meta": meta}]})

    async def _clear_kv_states(self, _: Request) -> Response:
        self.cleared += 1
        return Response(status_code=204)

    async def _status(self, _: Request) -> Response:
        facts = {"pid": self.pid, "uptime": 61.0, "log": "/nowhere/backend.log", "context": CONTEXT, "slots": 4}
        more = {"rss": 250_000_000, "threads": 2, "active": self.active, "models": [self.model, *self.others]}
        kept = {"states": 2, "ram_bytes": 0, "ram_limit": 1000, "disk_bytes": 46_100_000, "disk_limit": 2_000_000_000}
        store = {"kv_store": {**kept, "folder": "/nowhere/kv-states"}}
        return JSONResponse({"state": "ready", "model": self.model, **facts, **more, **store})


def _choice(delta: dict[str, str], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _usage(count: int) -> dict[str, Any]:
    details = {"cached_tokens": 3}
    return {
        "prompt_tokens": 11,
        "completion_tokens": count,
        "total_tokens": 11 + count,
        "prompt_tokens_details": details,
    }


def _chunk(**facts: Any) -> bytes:
    return _event({"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": MODEL, **facts})


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"
