"""What a hostile or broken server answers: whole heads and bodies, and pieces of them, to each call of our client."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from llama_backend.client.http_client import Address, Client
from llama_backend.client.stream_position import StreamPosition
from llama_backend.errors import BackendError
from llama_backend.wire.api import ChatMessage
from llama_chat.cli.commands.models import model_row, served_facts
from llama_chat.cli.commands.status import status_rows
from llama_chat.cli.display.output import format_table
from llama_chat.errors import exit_code
from llama_chat.history import History
from llama_chat.turn import Turn
from llama_chat.ui.context_meter import Reading
from llama_chat.ui.widgets.status_line import Status, row
from tests.hostile.terminal_text import is_harmless
from tests.hostile.trial import Check, Trial

_SECONDS = 10.0
"""After this long a client hangs; a case takes a few milliseconds."""
CALLS = ("chat", "resumable chat", "status", "models", "count", "clear_kv_states")

_NUMBERS = st.sampled_from(
    ["0", "-1", "1e400", "-0.0", "1e18", "9" * 25, "9" * 400, "9" * 5000, "18446744073709551615"]
)
_LEAVES = st.one_of(
    _NUMBERS,
    st.sampled_from(["null", "true", '""', "[]", "{}", '"\\ud800"', '"\\u202e"', '"\x1b[2J"', "[" * 2000, "NaN"]),
    st.text(max_size=6).map(json.dumps),
)
_FIELDS = """
    error message code type param retry_after self choices delta content finish_reason usage prompt_tokens seed timings
    completion_tokens prompt_tokens_details cached_tokens model id data meta context size name state progress reason
    pid uptime waiting kv_store states tuning count remaining fits predicted_per_second predicted_n log path
"""
_NAMES = st.sampled_from(_FIELDS.split())


def _objects(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(_NAMES, parts), max_size=4)
    return st.one_of(
        pairs.map(lambda found: "{" + ",".join(f'"{name}":{value}' for name, value in found) + "}"),
        st.lists(parts, max_size=3).map(lambda found: "[" + ",".join(found) + "]"),
    )


_JSON = st.recursive(_LEAVES, _objects, max_leaves=8)


def _put(name: str, value: str, template: str) -> str:
    """A known good object with one field in place of another, or added."""
    return template[:-1] + f',"{name}":{value}' + "}"


_CHUNK = '{"choices":[{"delta":{"content":"a"},"finish_reason":null}]}'
_LAST = '{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2},"seed":1}'
_STATUS = '{"state":"ready","model":"m","context":4096,"slots":1}'
_MODELS = '{"data":[{"id":"m","meta":{"context":1}}]}'
_COUNT = '{"count":1,"context":2,"remaining":1,"fits":true}'
_GOOD = st.sampled_from([_CHUNK, _LAST, _STATUS, _MODELS, _COUNT, '{"error":{"message":"m","code":"engine_died"}}'])
_ALMOST = st.builds(_put, _NAMES, _JSON, _GOOD)
_BODIES = st.one_of(_GOOD, _ALMOST, _JSON).map(lambda text: text.encode("utf-8", "surrogatepass"))
_EVENTS = st.one_of(
    _BODIES.map(lambda body: b"data: " + body + b"\n\n"),
    st.sampled_from(
        [
            *(b"id: 1\n", b"id: x\n", b"id: " + b"9" * 5000 + b"\n", b"id:\n", b": note\n\n", b"data\n", b"data:\n\n"),
            *(
                b"data: [DONE]\n\n",
                b"data: \xff\n\n",
                b"\r\n\r",
                b"event: error\n",
                b"\0" * 50,
                b"data: " + b"[" * 100_000,
            ),
        ]
    ),
)
_HEADERS = st.sampled_from(
    [
        *(b"Content-Type: text/event-stream", b"Content-Type: x/\xff", b"X-Resumable: 30", b"X-Resumable: \xb2"),
        *(b"X-Resumable: -1", b"X-Resumable: " + b"9" * 500, b"Content-Encoding: gzip", b"Content-Encoding: br"),
        *(b"Transfer-Encoding: chunked", b"Location: http://127.0.0.1:1/", b"Content-Length: 5", b"Content-Length: -1"),
        *(b"Set-Cookie: a=b", b"Retry-After: 1e999", b"X: " + b"x" * 200_000, b"no colon", b"Connection: close"),
    ]
)
_HEADS = st.builds(
    lambda status, headers: b"HTTP/1.1 " + status + b"\r\n" + b"".join(line + b"\r\n" for line in headers) + b"\r\n",
    st.sampled_from(
        [b"200 OK", b"200 OK", b"200 OK", b"204 No", b"302 Found", b"401 No", b"404 No", b"429 No", b"500 \xff"]
    ),
    st.lists(_HEADERS, max_size=2),
)
_STREAMS = st.lists(_EVENTS, max_size=6).map(b"".join)
_ANSWERS = st.builds(bytes.__add__, _HEADS, st.one_of(_BODIES, _STREAMS, _STREAMS.map(gzip.compress)))


def _mutated(answer: bytes, at: int, junk: bytes, cut: int) -> bytes:
    where = at % (len(answer) + 1)
    return answer[:where] + junk + answer[where + cut :]


_CASES = st.one_of(
    _ANSWERS,
    st.builds(_mutated, _ANSWERS, st.integers(0, 1 << 16), st.binary(max_size=3), st.integers(0, 20)),
    st.binary(max_size=60),
)


@contextmanager
def _opened(folder: Path) -> Iterator[Check]:
    with closing(History(Path(":memory:"))) as history, asyncio.Runner() as runner:
        yield lambda case: runner.run(_check(case, folder / "s.sock", history))


async def _check(case: bytes, path: Path, history: History) -> None:
    """The first byte says which call is made; the rest is what the server sends before it goes away."""
    server = await asyncio.start_unix_server(partial(_answer, case[1:]), path)
    async with server, Client(Address(socket=path), wait=0) as client:
        try:
            await asyncio.wait_for(_call(client, CALLS[case[0] % len(CALLS)], history), _SECONDS)
        except BackendError as error:
            message, code = str(error), exit_code(error)
        else:
            return
    assert code
    assert len(message) < 3000


async def _answer(answer: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _call(client: Client, call: str, history: History) -> None:
    """Makes the call, and shows and keeps what comes of it as the commands and the chat do."""
    if call == "chat":
        turn = Turn(history, None)
        async for _ in turn.stream(client, "hi"):
            pass
        assert turn.conversation is not None
        assert history.messages(turn.conversation.id)[-1].text == turn.text
    elif call == "resumable chat":
        async for _ in client.chat(_request(), position := StreamPosition()):
            assert 0 <= position.last < 10**15
    elif call == "status":
        status = await client.status()
        assert is_harmless(format_table(status_rows("here", status)))
        row(Status(model=status.model, reading=Reading(1, status.context, True)), 80)
    elif call == "models":
        rows = [model_row(served_facts(model)) for model in await client.models()]
        assert is_harmless(format_table(rows or [("",)]))
    elif call == "count":
        found = await client.count([ChatMessage("user", "hi")])
        assert len(row(Status(reading=Reading(found.count, found.context, True)), 80).plain) < 200
    else:
        await client.clear_kv_states()


def _request() -> Any:
    from llama_backend.wire.api import ChatRequest

    return ChatRequest(messages=[ChatMessage("user", "hi")])


_CALLS = st.integers(0, len(CALLS) - 1).map(lambda number: bytes([number]))
SERVER_ANSWERS = Trial("server-answers", st.builds(bytes.__add__, _CALLS, _CASES), _opened, 400)
