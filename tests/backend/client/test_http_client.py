"""The client against a server that plays a script, and against the real server on a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import pytest

from llama_backend.client.http_client import Address, Client
from llama_backend.errors import BackendError, EngineDied, InvalidRequest, PromptTooLong, Unauthorized, Unreachable
from llama_backend.wire.api import ChatMessage, ChatRequest, Delta
from tests.support.server.fake_engine import CONTEXT
from tests.support.server.harness import MODEL, ServerProcess, fake_config, serving

Connection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def request(text: str = "a") -> ChatRequest:
    return ChatRequest(messages=[ChatMessage("user", text)])


def chunk(content: str, reason: str = "null") -> bytes:
    return f'data: {{"choices":[{{"delta":{{"content":"{content}"}},"finish_reason":{reason}}}]}}\n\n'.encode()


@asynccontextmanager
async def scripted(
    folder: Path, *parts: bytes, seen: list[bytes] | None = None, pause: float = 0.001
) -> AsyncIterator[Client]:
    """A client of a server that sends these bytes to whoever asks, and ends the connection."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            (seen if seen is not None else []).append(head)
            for part in parts:
                await asyncio.sleep(pause)
                writer.write(part)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    tasks = set[asyncio.Task[None]]()
    path = folder / "script.sock"
    server = await asyncio.start_unix_server(answer, path)
    async with server, Client(Address(socket=path)) as client:
        yield client
    await asyncio.gather(*tasks)


async def deltas(client: Client) -> list[Delta]:
    return [delta async for delta in client.chat(request())]


async def test_a_stream_becomes_deltas(tmp_path: Path) -> None:
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}\n\n'
    parts = [b": heartbeat\n\n", chunk("Hi"), chunk("", '"length"'), usage, b"data: [DONE]\n\n"]
    async with scripted(tmp_path, HEAD, *parts) as client:
        found = await deltas(client)
    assert [(delta.text, delta.finish_reason) for delta in found] == [("Hi", None), ("", "length"), ("", None)]
    assert found[-1].usage is not None
    assert found[-1].usage.total_tokens == 3


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\x85b", "\u2028", "é😀", '\\"error\\"'])
async def test_separators_within_a_text_are_no_line_ends(tmp_path: Path, text: str) -> None:
    async with scripted(tmp_path, HEAD, chunk(text, '"stop"')) as client:
        assert "".join(delta.text for delta in await deltas(client)) == text.replace('\\"', '"')


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_events_may_come_in_any_pieces(tmp_path: Path, size: int) -> None:
    stream = b"\r\n: note\r\n" + chunk("é\u2028").replace(b"\n", b"\r\n") + chunk("b", '"stop"') + b"data: [DONE]\n\n"
    parts = [stream[start : start + size] for start in range(0, len(stream), size)]
    async with scripted(tmp_path, HEAD, *parts) as client:
        assert "".join(delta.text for delta in await deltas(client)) == "é\u2028b"


async def test_a_last_line_without_an_end_counts(tmp_path: Path) -> None:
    async with scripted(tmp_path, HEAD, chunk("a", '"stop"').rstrip()) as client:
        assert [delta.text for delta in await deltas(client)] == ["a"]


async def test_an_error_event_is_raised_after_what_came(tmp_path: Path) -> None:
    error = b'data: {"error":{"message":"it is gone","code":"engine_died","type":"x","param":null}}\n\n'
    texts = []
    async with scripted(tmp_path, HEAD, chunk("a"), error) as client:
        stream = client.chat(request())
        texts.append((await anext(stream)).text)
        with pytest.raises(EngineDied, match="it is gone"):
            await anext(stream)
    assert texts == ["a"]


async def test_an_end_without_a_finish_reason_is_an_error(tmp_path: Path) -> None:
    async with scripted(tmp_path, HEAD, chunk("a")) as client:
        with pytest.raises(Unreachable, match="before the answer was complete"):
            await deltas(client)


async def test_a_connection_that_breaks_in_a_chunk(tmp_path: Path) -> None:
    head = HEAD.replace(b"Connection: close", b"Transfer-Encoding: chunked")
    async with scripted(tmp_path, head, b"ff\r\ndata: ") as client:
        with pytest.raises(Unreachable, match="broke"):
            await deltas(client)


@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"data: {broken\n\n",
        HEAD + b'data: {"choices": 5}\n\n',
        HEAD.replace(b"200 OK", b"502 Bad Gateway") + b"<html>",
        HEAD.replace(b"200 OK", b"302 Found") + b"",
        HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n") + b"no gzip",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
    ],
)
async def test_a_server_that_speaks_otherwise(tmp_path: Path, answer: bytes) -> None:
    async with scripted(tmp_path, answer) as client:
        with pytest.raises(BackendError) as caught:
            await deltas(client)
        assert "\n" not in str(caught.value)
        with pytest.raises(BackendError):
            await client.models()


async def test_a_count_may_wait_for_the_model_as_long_as_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_backend.client.http_client.SILENCE_SECONDS", 0.1)
    body = b'{"count":1,"context":9,"remaining":8,"fits":true}'
    async with scripted(tmp_path, HEAD + body, pause=0.3) as client:
        assert (await client.count([])).count == 1
        with pytest.raises(Unreachable, match="in time"):
            await client.status()


async def test_a_client_is_one_session_for_routers(tmp_path: Path) -> None:
    def session(head: bytes) -> bytes:
        return next(line for line in head.splitlines() if line.lower().startswith(b"x-session-id: "))

    seen: list[bytes] = []
    for _ in range(2):
        async with scripted(tmp_path, HEAD + chunk("", '"stop"'), seen=seen) as client:
            await deltas(client)
            await deltas(client)
    first, again, *others = [session(head) for head in seen]
    assert first == again
    assert others[0] == others[1] != first


async def test_what_is_sent(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with scripted(tmp_path, HEAD, chunk("a", '"stop"'), seen=seen) as plain:
        await deltas(plain)
        async with Client(plain.address, api_key="k3y", wait=7) as client:
            await deltas(client)
        async with Client(plain.address, wait=0) as client:
            await deltas(client)
    first, second, third = (head.lower() for head in seen)
    assert first.startswith(b"post /v1/chat/completions ")
    assert b"prefer: wait=300" in first
    assert b"authorization" not in first
    assert b"authorization: bearer k3y" in second
    assert b"prefer: wait=7" in second
    assert b"prefer" not in third


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9",
        "http://",
        "ftp://a",
        "not a url",
        "http://[::1",
        "http://a:99999",
        "http://no.such.invalid",
    ],
)
async def test_an_address_where_nobody_answers(url: str) -> None:
    with pytest.raises(BackendError) as caught:
        async with Client(Address(url=url)) as client:
            await client.models()
    assert url in str(caught.value)


@pytest.mark.parametrize("key", ["line\nbreak", "clé", "\ud800"])
async def test_a_key_that_no_header_can_hold(key: str) -> None:
    with pytest.raises(BackendError, match="API key"):
        async with Client(Address(url="http://127.0.0.1:9"), api_key=key) as client:
            await client.models()


async def test_a_socket_that_is_not_there(tmp_path: Path) -> None:
    async with Client(Address(socket=tmp_path / "none.sock")) as client:
        with pytest.raises(Unreachable, match=r"none\.sock"):
            await client.status()


def test_addresses() -> None:
    assert str(Address(url="http://a:1")) == "http://a:1"
    assert str(Address(socket=Path("/s"))) == "/s"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("b")
    with serving(fake_config(folder, heartbeat=0.2), folder) as server:
        yield server


@pytest.fixture
async def client(backend: ServerProcess) -> AsyncIterator[Client]:
    async with Client(Address(socket=Path(str(backend.config.socket)))) as client:
        yield client


async def test_a_chat_with_the_server(client: Client) -> None:
    found = [delta async for delta in client.chat(request("words=3 delay=0.01"))]
    assert "".join(delta.text for delta in found) == "w0 w1 w2"
    last = next(delta for delta in found if delta.finish_reason)
    assert (last.finish_reason, last.model) == ("stop", MODEL)
    assert last.timings is not None
    assert last.seed is not None
    assert found[-1].usage is not None
    assert found[-1].usage.completion_tokens == 3


async def test_counting_models_and_status(client: Client) -> None:
    count = await client.count([ChatMessage("user", "one two")])
    assert (count.count, count.context, count.remaining, count.fits) == (2, CONTEXT, CONTEXT - 2, True)
    models = await client.models()
    assert [model.id for model in models] == [MODEL]
    assert (await client.status()).state == "ready"


async def test_errors_of_the_server(client: Client) -> None:
    with pytest.raises(PromptTooLong) as caught:
        await anext(client.chat(request(" ".join(["a"] * 300))))
    assert caught.value.details["prompt_tokens"] == 300
    with pytest.raises(InvalidRequest):
        await anext(client.chat(ChatRequest(messages=[])))
    with pytest.raises(BackendError):
        await anext(client.chat(ChatRequest(messages=[ChatMessage("user", "a")], model="other")))


async def test_closing_the_answer_stops_the_work(backend: ServerProcess, client: Client) -> None:
    async with aclosing(client.chat(request("words=1000 delay=0.1"))) as stream:
        await anext(stream)
        await anext(stream)
        assert (await client.status()).active == 1
    await asyncio.to_thread(backend.wait_idle)


def test_unauthorized_is_not_unreachable() -> None:
    assert not issubclass(Unauthorized, Unreachable)
