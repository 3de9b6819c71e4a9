"""The HTTP client of a backend, over a Unix socket or to a URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

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
from llama_backend.wire.headers import LAST_EVENT_ID, RESUMABLE, SESSION_ID
from llama_backend.wire.status import BackendStatus

T = TypeVar("T")

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 60.0
"""A server that sends nothing for so long is gone: it sends a heartbeat every 15 s, so four are missing."""
_STOP_SECONDS = 2.0
_MOST_REASON = 300
"""Most characters that are shown of an error of a library."""
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Address:
    """Where a backend listens: a Unix socket, or else a URL such as `http://host:8080`."""

    url: str = "http://localhost"
    socket: Path | None = None

    def __str__(self) -> str:
        return str(self.socket) if self.socket else self.url


class Client:
    """A backend over HTTP; it has all methods of the protocols in `protocols`.

    All requests of a client carry the same random id, so that a router in front of several backends can send them to
    the same one. `wait` is how many seconds a request may wait for a model that is loading (RFC 7240 `Prefer: wait`).
    Raises Unreachable for an address that is not a URL, and Unauthorized for a key that cannot be sent in a header.
    """

    def __init__(self, address: Address, api_key: str | None = None, wait: float = 300.0) -> None:
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise Unauthorized("the API key has characters that cannot be sent in a header; check where it comes from")
        self.address = address
        self._wait = wait
        headers = {SESSION_ID: os.urandom(8).hex(), "Accept-Encoding": "identity"}
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
        """As Closable.aclose."""
        await self._http.aclose()

    async def chat(self, request: ChatRequest, position: StreamPosition | None = None) -> AsyncGenerator[Delta, None]:
        """As ChatBackend.chat. After a broken connection, a call with the same position continues the answer there."""
        place = position or StreamPosition()
        async with self._asked(0, **_chat_call(request, position)) as answer:
            if answer.status_code != 200:
                raise await refusal(answer, SILENCE_SECONDS)
            if position is not None:
                position.grace = number_of(answer.headers.get(RESUMABLE, "").encode())
            async for delta in _deltas(answer, place):
                yield delta

    async def stop(self, position: StreamPosition) -> None:
        """Stops a resumable answer, which the server would otherwise continue for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS), self._asked(0, "DELETE", f"/v1/streams/{position.name}"):
                pass

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        """As TokenCounter.count."""
        body = encode(TokenizeRequest(messages=messages))
        return await self._call("POST", "/v1/tokenize", TokenCount, body)

    async def models(self) -> list[ModelInfo]:
        """As ModelLister.models."""
        return (await self._call("GET", "/v1/models", ModelList)).data

    async def status(self) -> BackendStatus:
        """As StatusReporter.status."""
        return await self._call("GET", "/v1/status", BackendStatus)

    async def clear_kv_states(self) -> None:
        """As KVStateCache.clear_kv_states."""
        async with self._asked(0, "DELETE", "/v1/kv-states") as answer:
            if answer.status_code != 204:
                raise await refusal(answer, SILENCE_SECONDS)

    async def _call(self, method: str, path: str, kind: type[T], body: bytes | None = None) -> T:
        headers, extra = (_JSON, self._wait) if body else (None, 0.0)
        async with self._asked(extra, method, path, content=body, headers=headers) as answer:
            if answer.status_code != 200:
                raise await refusal(answer, SILENCE_SECONDS)
            return msgspec.json.decode(await body_of(answer, SILENCE_SECONDS), type=kind)

    @asynccontextmanager
    async def _asked(self, extra: float, method: str, url: str, **content: Any) -> AsyncIterator[httpx2.Response]:
        """The response to a request, with its body still to be read; its head may take `extra` seconds longer."""
        async with self._mapped_errors():
            request = self._http.build_request(method, url, timeout=_timeout(extra), **content)
            async with asyncio.timeout(extra + SILENCE_SECONDS + CONNECT_SECONDS):
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
            raise Unreachable(f"no backend answers at {self.address} in time") from error
        except httpx2.TimeoutException as error:
            raise ConnectionLost(f"the backend at {self.address} does not answer in time") from error
        except httpx2.TransportError as error:
            raise ConnectionLost(f"the connection to {self.address} broke: {_reason(error)}") from error
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise Unreachable(f"no request can be sent to {self.address}: {_reason(error)}") from error
        except TimeoutError as error:
            raise ConnectionLost(f"the backend at {self.address} sends its answer too slowly") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise BackendError(
                f"the answer of {self.address} is not that of a backend: {_reason(error)[:_MOST_REASON]}"
            ) from error


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def _base_url(url: str) -> httpx2.URL:
    try:
        return httpx2.URL(url.rstrip("/").removesuffix("/v1"))
    except httpx2.InvalidURL as error:
        raise Unreachable(f"{url} is not a valid URL: {error}") from error


def _timeout(extra: float) -> httpx2.Timeout:
    """Limits for connecting and for silence, which may last `extra` seconds longer where no heartbeats are sent."""
    return httpx2.Timeout(SILENCE_SECONDS + extra, connect=CONNECT_SECONDS)


def _streaming(request: ChatRequest) -> dict[str, Any]:
    """The fields of a streaming request: only those that are set, with the schema where OpenAI's API has it."""
    fields = msgspec.to_builtins(request)
    unset = {field.name: field.default for field in msgspec.structs.fields(request)}
    chosen = {name: value for name, value in fields.items() if value != unset[name]}
    if "json_schema" in chosen:
        schema = {"name": "answer", "schema": chosen.pop("json_schema")}
        chosen["response_format"] = {"type": "json_schema", "json_schema": schema}
    return chosen | {"stream": True, "stream_options": {"include_usage": True}}


def _chat_call(request: ChatRequest, position: StreamPosition | None) -> dict[str, Any]:
    """The HTTP request for an answer from its beginning, or from a position in it."""
    if position is not None and position.last:
        url, headers = f"/v1/streams/{position.name}", {LAST_EVENT_ID: str(position.last)}
        return {"method": "GET", "url": url, "headers": headers}
    headers = _JSON if position is None else _JSON | {RESUMABLE: position.name}
    return {
        "method": "POST",
        "url": "/v1/chat/completions",
        "content": encode(_streaming(request)),
        "headers": headers,
    }


async def _deltas(answer: httpx2.Response, position: StreamPosition) -> AsyncGenerator[Delta, None]:
    """Server-sent events as Deltas. Raises the error of an error event, and ConnectionLost for an incomplete stream."""
    finished, number, size = False, 0, 0
    async for line in lines_of(answer, SILENCE_SECONDS):
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
                raise BackendError(f"the answer has more than {MOST_ANSWER} characters; it is cut off here")
            yield delta
    if not finished or position.grace is not None:
        raise ConnectionLost("the connection to the backend broke before the answer was complete")


def _raise_error_event(data: bytes, position: StreamPosition) -> None:
    """Raises the error that an event holds; a delta whose text only mentions the word has none."""
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
