"""The one way to a backend: the HTTP API over a Unix socket or a URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import httpx2
import msgspec

from llama_backend.client.replies import MOST_ANSWER, body_of, lines_of, number_of, parsed, refusal
from llama_backend.client.stream_position import StreamPosition
from llama_backend.errors import BackendError, ConnectionLost, Unauthorized, Unreachable, from_wire
from llama_backend.wire.api import (
    ChatMessage,
    ChatRequest,
    Delta,
    ModelInfo,
    ModelList,
    TokenCount,
    TokenizeRequest,
    decode_chunk,
    encode,
)
from llama_backend.wire.status import BackendStatus

T = TypeVar("T")

_CONNECT_SECONDS = 10.0
_STOP_SECONDS = 2.0
_MOST_REASON = 300
_SILENCE_SECONDS = 60.0
"""The server sends a heartbeat every 15 s; four missing ones mean that it is gone."""


@dataclass(frozen=True)
class Address:
    """Where a backend listens: a Unix socket, or else a URL such as `http://host:8080`."""

    url: str = "http://localhost"
    socket: Path | None = None

    @property
    def is_local(self) -> bool:
        return self.socket is not None

    def __str__(self) -> str:
        return str(self.socket) if self.socket else self.url


class Backend(Protocol):
    """What a front end needs of a backend; every method raises BackendError."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answer in pieces, the last with a finish reason. Closing the iterator stops the work."""
        ...

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        """Exact prompt tokens of a conversation."""
        ...

    async def models(self) -> list[ModelInfo]: ...

    async def status(self) -> BackendStatus: ...

    async def aclose(self) -> None: ...


class Client:
    """A Backend over HTTP.

    Its requests carry an id of its own, by which a router in front of several backends can send them all to one.
    `wait` is how many seconds a request may wait for a model that is loading (RFC 7240 `Prefer: wait`).
    Raises Unreachable for an address that is no URL and Unauthorized for a key that no header can hold.
    """

    def __init__(self, address: Address, api_key: str | None = None, wait: float = 300.0) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise Unauthorized("the API key has characters that cannot be sent")
        self.address = address
        self._wait = wait
        headers = {"X-Session-ID": os.urandom(8).hex(), "Accept-Encoding": "identity"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        if wait:
            headers["Prefer"] = f"wait={wait:.0f}"
        uds = str(address.socket) if address.socket else None
        needs_tls = uds is None and address.url.startswith("https:")
        self._http = httpx2.AsyncClient(
            base_url=_base_url(address.url),
            headers=headers,
            transport=httpx2.AsyncHTTPTransport(uds=uds, verify=needs_tls),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._http.aclose()

    async def chat(self, request: ChatRequest, position: StreamPosition | None = None) -> AsyncGenerator[Delta, None]:
        """As Backend.chat. With a position the answer can be taken up again: a call with the same one goes on there."""
        place = position or StreamPosition()
        async with self._asked(0, **_question(request, position)) as answer:
            if answer.status_code != 200:
                raise await refusal(answer, _SILENCE_SECONDS)
            if position is not None:
                position.grace = number_of(answer.headers.get(RESUMABLE, "").encode())
            async for delta in _deltas(answer, place):
                yield delta

    async def stop(self, position: StreamPosition) -> None:
        """Stops an answer that can be taken up again, so that the server does not wait for that."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS), self._asked(0, "DELETE", f"/v1/streams/{position.name}"):
                pass

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        body = encode(TokenizeRequest(messages=messages))
        return await self._call("POST", "/v1/tokenize", TokenCount, body)

    async def models(self) -> list[ModelInfo]:
        return (await self._call("GET", "/v1/models", ModelList)).data

    async def status(self) -> BackendStatus:
        return await self._call("GET", "/v1/status", BackendStatus)

    async def clear_kv_states(self) -> None:
        """Drops all that a local backend keeps of conversations to go on with them quickly."""
        async with self._asked(0, "DELETE", "/v1/kv-states") as answer:
            if answer.status_code != 204:
                raise await refusal(answer, _SILENCE_SECONDS)

    async def _call(self, method: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        headers, patience = (_JSON, self._wait) if body else (None, 0.0)
        async with self._asked(patience, method, path, content=body, headers=headers) as answer:
            if answer.status_code != 200:
                raise await refusal(answer, _SILENCE_SECONDS)
            return msgspec.json.decode(await body_of(answer, _SILENCE_SECONDS), type=kind)

    @asynccontextmanager
    async def _asked(self, patience: float, method: str, url: str, **content: Any) -> AsyncIterator[httpx2.Response]:
        """The head of an answer, which may take `patience` seconds longer than usual; its body is yet to be read."""
        async with self._mapped_errors():
            request = self._http.build_request(method, url, timeout=_silence(patience), **content)
            async with asyncio.timeout(patience + _SILENCE_SECONDS + _CONNECT_SECONDS):
                answer = await self._http.send(request, stream=True)
            try:
                yield answer
            finally:
                await answer.aclose()

    @asynccontextmanager
    async def _mapped_errors(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx2.ConnectError as error:
            raise Unreachable(f"no backend answers at {self.address}: {error}") from error
        except httpx2.ConnectTimeout as error:
            raise Unreachable(f"nobody answers at {self.address} in time") from error
        except httpx2.TimeoutException as error:
            raise ConnectionLost(f"the backend at {self.address} does not answer in time") from error
        except httpx2.TransportError as error:
            raise ConnectionLost(f"the connection to {self.address} broke: {_reason(error)}") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise Unreachable(f"{self.address} cannot be asked: {_reason(error)}") from error
        except TimeoutError as error:
            raise ConnectionLost(f"the answer of the backend at {self.address} comes too slowly") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BackendError(
                f"the backend at {self.address} answered something else: {_reason(error)[:_MOST_REASON]}"
            ) from error


RESUMABLE = "X-Resumable"
"""The header that names an answer which can be taken up again; its answer says for how many seconds."""
_JSON = {"Content-Type": "application/json"}


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _base_url(url: str) -> httpx2.URL:
    try:
        return httpx2.URL(url.rstrip("/").removesuffix("/v1"))
    except httpx2.InvalidURL as error:
        raise Unreachable(f"{url}: is no URL: {error}") from error


def _silence(extra: float) -> httpx2.Timeout:
    """Bears `extra` seconds of silence more than heartbeats leave: what is no stream has none."""
    return httpx2.Timeout(_SILENCE_SECONDS + extra, connect=_CONNECT_SECONDS)


def _streaming(request: ChatRequest) -> dict[str, Any]:
    """The request as a streamed one, without the fields that are not set; a schema as every server knows it."""
    fields = msgspec.to_builtins(request)
    unset = {field.name: field.default for field in msgspec.structs.fields(request)}
    chosen = {name: value for name, value in fields.items() if value != unset[name]}
    if "json_schema" in chosen:
        schema = {"name": "answer", "schema": chosen.pop("json_schema")}
        chosen["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chosen | {"stream": True, "stream_options": {"include_usage": True}}


def _question(request: ChatRequest, position: StreamPosition | None) -> dict[str, Any]:
    """The HTTP request for an answer from its beginning, or from a position in it."""
    if position is not None and position.last:
        url, headers = f"/v1/streams/{position.name}", {"Last-Event-ID": str(position.last)}
        return {"method": "GET", "url": url, "headers": headers}
    headers = _JSON if position is None else _JSON | {RESUMABLE: position.name}
    return {
        "method": "POST",
        "url": "/v1/chat/completions",
        "content": encode(_streaming(request)),
        "headers": headers,
    }


async def _deltas(answer: httpx2.Response, position: StreamPosition) -> AsyncGenerator[Delta, None]:
    """Server-sent events as Deltas; raises what an error event says, and ConnectionLost where the end is missing."""
    finished, number, size = False, 0, 0
    async for line in lines_of(answer, _SILENCE_SECONDS):
        if line.startswith(b"id:") and position.grace is not None:
            number = number_of(line[3:]) or number
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        if b'"error"' in data:
            _raise_error_event(data, position)
        found = _delta(data)
        position.last, position.has_begun = number, True
        for delta in found:
            finished = finished or delta.finish_reason is not None
            size += len(delta.text)
            if size > MOST_ANSWER:
                raise BackendError("the answer goes on without an end")
            yield delta
    if not finished or position.grace is not None:
        raise ConnectionLost("the connection to the backend broke before the answer was complete")


def _raise_error_event(data: bytes, position: StreamPosition) -> None:
    body = parsed(data)
    if isinstance(body, dict) and body.get("error"):
        position.has_failed = True
        raise from_wire(body, 500)


def _delta(data: bytes) -> list[Delta]:
    chunk = decode_chunk(data)
    facts = {"usage": chunk.usage, "timings": chunk.timings, "model": chunk.model, "seed": chunk.seed}
    if not chunk.choices:
        return [Delta(**facts)] if chunk.usage else []  # type: ignore[arg-type]
    choice = chunk.choices[0]
    reason = _FINISH.get(choice.finish_reason, "stop") if choice.finish_reason else None
    return [Delta(text=choice.delta.content or "", finish_reason=reason, **facts)]  # type: ignore[arg-type]


_FINISH: dict[str | None, Any] = {
    "stop": "stop",
    "length": "length",
    "cancelled": "cancelled",
    "error": "error",
}
