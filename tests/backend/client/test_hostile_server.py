"""Servers that send without end, too slowly, packed or elsewhere: the client ends with an error, in little memory."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest

from llama_backend.client import http_client as client_module
from llama_backend.client.http_client import Address, Client
from llama_backend.client.replies import MOST_BODY, MOST_LINE
from llama_backend.errors import BackendError, ConnectionLost
from llama_backend.wire.api import ChatMessage, ChatRequest

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
SECRET = "sesame-open"


@asynccontextmanager
async def serving(*parts: bytes, again: bytes = b"", pause: float = 0.0) -> AsyncIterator[tuple[Client, list[bytes]]]:
    """A client with a key, of a server that sends `parts` and then `again` for ever; and the requests it got."""
    seen: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(cast("asyncio.Task[None]", asyncio.current_task()))
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            seen.append(await reader.readuntil(b"\r\n\r\n"))
            for part in parts:
                writer.write(part)
            while again:
                writer.write(again)
                await writer.drain()
                await asyncio.sleep(pause)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with Client(Address(url=f"http://127.0.0.1:{port}"), api_key=SECRET, wait=0) as client:
        yield client, seen
    server.close()
    await asyncio.gather(*tasks)


async def chat(client: Client) -> object:
    return [delta async for delta in client.chat(ChatRequest(messages=[ChatMessage("user", "hi")]))]


async def models(client: Client) -> object:
    return await client.models()


async def status(client: Client) -> object:
    return await client.status()


Call = Callable[[Client], Awaitable[object]]
EVERY = pytest.mark.parametrize("call", [chat, models, status])


async def failure(client: Client, call: Call) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await asyncio.wait_for(call(client), 60)
    assert SECRET not in repr(caught.value)
    return caught.value


@EVERY
async def test_a_line_or_body_without_end(call: Call) -> None:
    tracemalloc.start()
    async with serving(HEAD, b"data: ", again=b"x" * 65536) as (client, _):
        error = await failure(client, call)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "MiB" in str(error)
    assert most < 8 * max(MOST_LINE, MOST_BODY)


@EVERY
async def test_an_error_without_end(call: Call) -> None:
    async with serving(HEAD.replace(b"200", b"500"), again=b"x" * 65536) as (client, _):
        assert "more than 8 MiB" in str(await failure(client, call))


async def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MOST_ANSWER", 10_000)
    event = b'data: {"choices":[{"delta":{"content":"' + b"a" * 100 + b'"}}]}\n\n'
    async with serving(HEAD, again=event) as (client, _):
        assert "more than 10000 characters" in str(await failure(client, chat))


@EVERY
@pytest.mark.parametrize("head", [b"", HEAD], ids=["head", "body"])
async def test_a_byte_now_and_then(call: Call, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(client_module, "CONNECT_SECONDS", 0.5)
    async with serving(head or b"HTTP/1.1 200 OK\r\nX: ", again=b"x", pause=0.05) as (client, _):
        assert isinstance(await failure(client, call), ConnectionLost)


@EVERY
async def test_what_is_packed_is_not_unpacked(call: Call) -> None:
    bomb = gzip.compress(bytes(50 << 20))
    head = HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    async with serving(head, bomb) as (client, seen):
        assert "compressed" in str(await failure(client, call))
        assert b"accept-encoding: identity" in seen[0].lower()


@EVERY
@pytest.mark.parametrize("number", [b"301", b"302", b"303", b"307", b"308"])
async def test_a_key_is_sent_nowhere_else(call: Call, number: bytes) -> None:
    async with serving(HEAD) as (elsewhere, got):
        location = f"\r\nLocation: {elsewhere.address}/v1/models\r\n\r\n".encode()
        async with serving(HEAD.replace(b"200", number).replace(b"\r\n\r\n", location)) as (client, seen):
            assert "redirects to another URL" in str(await failure(client, call))
            assert SECRET.encode() in seen[0]
    assert got == []


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"x":' + b"[" * 1_000_000 + b"\n\n",
        b'data: {"model":"\xff"}\n\n',
        b'data: {"seed":' + b"9" * 30 + b"}\n\n",
    ],
    ids=["nested", "no UTF-8", "a number for nobody"],
)
async def test_what_is_no_answer(body: bytes) -> None:
    async with serving(HEAD, body) as (client, _):
        assert "is not that of a backend" in str(await failure(client, chat))


async def test_a_long_complaint_is_cut() -> None:
    body = b'{"error":{"message":"' + b"m" * 1_000_000 + b'"}}'
    async with serving(HEAD.replace(b"200", b"400"), body) as (client, _):
        assert len(str(await failure(client, chat))) < 3000
