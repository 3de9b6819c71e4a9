"""Answers that outlive their connection: numbered, kept for a while, and for nobody but who asked."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from llama_backend.errors import NotFound
from llama_backend.server.streaming.streams import MOST_UNREAD, Streams
from llama_backend.wire.headers import LAST_EVENT_ID, RESUMABLE
from tests.backend.server.conftest import Serve
from tests.support.server.harness import CHAT, ServerProcess, chat, free_port
from tests.support.wait import until, until_async

NAME = "a-name-made-at-random"
SLOW = "words=1000 delay=0.05"


def begin(client: httpx2.Client, text: str, events: int = 2, headers: dict[str, str] | None = None) -> list[str]:
    """Asks for an answer that can be taken up, reads some events, and breaks the connection."""
    all_headers = {RESUMABLE: NAME} | (headers or {})
    with client.stream("POST", CHAT, json=chat(text, stream=True), headers=all_headers) as answer:
        assert answer.status_code == 200, answer.read()
        found = events_of(answer)
        return [next(found) for _ in range(events)]


def events_of(answer: httpx2.Response) -> Iterator[str]:
    event = ""
    for line in answer.iter_lines():
        if line.startswith(":"):
            continue
        if line:
            event += f"{line}\n"
        elif event:
            yield event
            event = ""


def resume(client: httpx2.Client, after: int) -> list[str]:
    with client.stream("GET", f"/v1/streams/{NAME}", headers={LAST_EVENT_ID: str(after)}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers[RESUMABLE] == "30"
        return list(events_of(answer))


async def finished() -> AsyncGenerator[bytes, None]:
    yield b"data: 1\n\n"
    yield b"data: 2\n\n"


def is_kept(streams: Streams, key: tuple[bytes, str]) -> bool:
    with suppress(NotFound):
        streams.resume(key, 0)
        return True
    return False


async def test_nobody_loses_an_answer_for_what_others_leave() -> None:
    streams = Streams(30)
    for key in [(b"one", "first"), *((b"many", str(number)) for number in range(MOST_UNREAD + 20))]:
        reader = streams.open(key, finished())
        await anext(reader)
        await reader.aclose()
        await asyncio.sleep(0)
    await until_async(lambda: not is_kept(streams, (b"many", "20")))
    assert [event async for event in streams.resume((b"one", "first"), 1)] == [b"id: 2\ndata: 2\n\n"]
    with pytest.raises(NotFound):
        streams.resume((b"many", "0"), 0)
    for name in ("first", *map(str, range(21, MOST_UNREAD + 20))):
        await streams.stop((b"one" if name == "first" else b"many", name))


@pytest.fixture
def server(serve: Serve) -> ServerProcess:
    return serve(slots=2)


def test_the_rest_follows_what_came(server: ServerProcess) -> None:
    with server.http() as client:
        came = begin(client, "a b c d delay=0.02", events=3)
        rest = resume(client, 3)
        again = resume(client, 0)
    numbers = [int(event.split("\n")[0].removeprefix("id: ")) for event in [*came, *rest]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert again == [*came, *rest]
    assert again[-1].endswith("data: [DONE]\n")


def test_who_does_not_ask_gets_no_numbers(server: ServerProcess) -> None:
    with server.http() as client, client.stream("POST", CHAT, json=chat("a b", stream=True)) as answer:
        assert RESUMABLE not in answer.headers
        assert not any("id: " in event for event in events_of(answer))


def test_the_same_request_finds_the_same_answer(server: ServerProcess) -> None:
    with server.http() as client:
        came = begin(client, SLOW)
        assert begin(client, SLOW, events=3)[:2] == came
        assert server.status().active == 1
        client.delete(f"/v1/streams/{NAME}")


def test_stopping_ends_the_work_at_once(server: ServerProcess) -> None:
    with server.http() as client:
        begin(client, SLOW)
        assert server.status().running == 1
        assert client.delete(f"/v1/streams/{NAME}").status_code == 204
        server.wait_idle(1)
        assert client.get(f"/v1/streams/{NAME}").status_code == 404
        assert client.delete(f"/v1/streams/{NAME}").status_code == 404


def test_nobody_who_comes_back_ends_it_too(serve: Serve) -> None:
    server = serve(resume_grace=0.3)
    with server.http() as client:
        begin(client, SLOW)
        assert server.status().running == 1
        server.wait_idle(3)
        assert client.get(f"/v1/streams/{NAME}").status_code == 404


def test_another_key_does_not_find_it(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    server = serve(host="127.0.0.1", port=free_port(), api_key_file=str(keys))
    one, two = ({"Authorization": f"Bearer {key}"} for key in ("one", "two"))
    with server.tcp() as client:
        begin(client, SLOW, headers=one)
        for method in ("GET", "DELETE"):
            assert client.request(method, f"/v1/streams/{NAME}", headers=two).status_code == 404
            assert client.request(method, f"/v1/streams/{NAME}").status_code == 401
        begin(client, SLOW, headers=two)
        assert server.status().active == 2
        with server.http() as local:
            assert local.get(f"/v1/streams/{NAME}").status_code == 404
        for headers in (one, two):
            assert client.delete(f"/v1/streams/{NAME}", headers=headers).status_code == 204


def test_a_refused_request_is_not_kept(server: ServerProcess) -> None:
    with server.http() as client:
        for _ in range(2):
            answer = client.post(CHAT, json=chat("x " * 300, stream=True), headers={RESUMABLE: NAME})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert client.get(f"/v1/streams/{NAME}").status_code == 404
        assert begin(client, "a b", events=1)


def test_an_error_after_the_beginning_is_kept_with_the_rest(server: ServerProcess) -> None:
    with server.http() as client:
        begin(client, "a b error delay=0.02")
        assert "the fake was told to fail" in resume(client, 2)[-1]


@pytest.mark.parametrize("headers", [{RESUMABLE: "short"}, {RESUMABLE: "../../etc/passwd-and-more"}])
def test_a_bad_name(shared: ServerProcess, headers: dict[str, str]) -> None:
    with shared.http() as client:
        answer = client.post(CHAT, json=chat("a", stream=True), headers=headers)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, RESUMABLE)


@pytest.mark.parametrize(("last", "status"), [("x", 400), ("-1", 400), ("9" * 20, 400), ("999", 404)])
def test_a_bad_place(server: ServerProcess, last: str, status: int) -> None:
    with server.http() as client:
        begin(client, "a b")
        answer: Any = client.get(f"/v1/streams/{NAME}", headers={LAST_EVENT_ID: last})
    assert answer.status_code == status


def test_draining_waits_for_who_comes_back(server: ServerProcess) -> None:
    with server.http() as client:
        begin(client, "a b c d delay=0.1")
        server.signal(signal.SIGTERM)
        server.wait_state("draining")
        until(lambda: server.status().active == 0, what="the end of the answer")
        assert resume(client, 2)[-1].endswith("data: [DONE]\n")
    assert server.process.wait(10) == 0
