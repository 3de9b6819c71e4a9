"""The engine is killed: streams end with an error, another engine comes, and one that keeps dying is slowed down."""

from __future__ import annotations

import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import httpx2
import openai
import pytest

from llama_backend.wire.headers import SHOULD_RETRY
from tests.backend.server.conftest import Serve
from tests.backend.server.http.test_metrics_page import metrics
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, MODEL, ServerProcess, chat
from tests.support.wait import until


def kill_engine(server: ServerProcess) -> int:
    pid = server.status().engine_pid
    assert pid is not None
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return pid


def test_a_stream_ends_with_an_error_event_after_what_had_come(serve: Serve) -> None:
    server = serve()
    with server.http() as client:
        text = client.post(CHAT, json=chat("words=5 die=3", stream=True)).text
    assert "w2" in text
    assert '"code":"engine_died"' in text
    assert "signal 9" in text
    assert "[DONE]" not in text
    assert text.index("w2") < text.index("engine_died")


def test_the_official_client_raises_it(serve: Serve) -> None:
    server = serve()
    texts = []
    with server.openai() as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "words=5 die=2 delay=0.01"}], stream=True
        )
        with pytest.raises(openai.APIError, match="the engine ended"):
            texts += [chunk.choices[0].delta.content for chunk in stream]


def test_an_answer_in_one_piece_that_ends_the_engine_each_time_is_not_to_be_tried_again(serve: Serve) -> None:
    server = serve()
    with server.http() as client:
        answer = client.post(CHAT, json=chat("words=5 die=3"))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "request_ends_engine"
    assert "twice the engine ended with signal 9" in answer.json()["error"]["message"]
    assert answer.headers[SHOULD_RETRY] == "false"


def test_another_engine_answers_soon(serve: Serve) -> None:
    server = serve()
    old = kill_engine(server)
    begin = monotonic()
    with server.http() as client:
        until(lambda: server.status().engine_pid not in (old, None), 2, "another engine")
        answer = client.post(CHAT, json=chat("a b"), headers={"Prefer": "wait=10"})
        assert answer.json()["choices"][0]["message"]["content"] == "a b"
    assert monotonic() - begin < 2
    status = server.status()
    assert (status.state, status.restarts, status.active, status.running) == ("ready", 1, 0, 0)


def test_requests_that_come_while_there_is_no_engine_wait_or_get_503(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    server = serve(FakeModel(gate=str(gate)))
    gate.unlink()
    kill_engine(server)
    server.wait_state("restarting")
    with server.http() as client:
        answer = client.post(CHAT, json=chat())
        assert answer.status_code == 503
        assert "restarting" in answer.json()["error"]["message"]
        assert client.get("/startupz").status_code == 200
        assert client.get("/readyz").status_code == 503
        gate.touch()
        assert client.post(CHAT, json=chat(), headers={"Prefer": "wait=10"}).status_code == 200


def test_those_in_the_queue_are_answered_by_the_next_engine(serve: Serve) -> None:
    server = serve(slots=1)
    socks = [server.raw() for _ in range(3)]
    for sock, text in zip(socks, ("words=1000 delay=0.1", "second", "third"), strict=True):
        send(sock, text)
        until(lambda: server.status().running == 1, what="a start")
    until(lambda: server.status().waiting == 2, what="a queue")
    begin = b""
    while b"w1" not in begin:
        begin += socks[0].recv(1000)
    kill_engine(server)
    texts = [read_all(sock) for sock in socks]
    for sock in socks:
        sock.close()
    assert b"engine_died" in texts[0]
    assert b"second" in texts[1]
    assert b"third" in texts[2]
    assert all(text.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") for text in texts[1:])
    server.wait_idle()


def test_an_answer_of_which_nothing_was_read_is_computed_again(serve: Serve, tmp_path: Path) -> None:
    server, gate = serve(), tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(post, server, chat(f"words=6 gate={gate}", n=2))
        until(lambda: metrics(server)("generated_tokens_total") == 10, what="what comes before the last words")
        kill_engine(server)
        gate.touch()
        body = answer.result(20).json()
    assert [choice["message"]["content"] for choice in body["choices"]] == ["w0 w1 w2 w3 w4 w5"] * 2
    assert server.status().restarts == 1


def test_who_was_in_the_batch_twice_is_not_run_again(serve: Serve) -> None:
    server = serve()
    assert post(server, chat("words=3 die=0")).status_code == 500
    assert server.status().restarts == 2


@pytest.mark.parametrize("stream", [False, True])
def test_whose_grammar_ended_the_engine_is_not_run_again_and_the_others_are(
    serve: Serve, tmp_path: Path, stream: bool
) -> None:
    server, gate = serve(), tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        other = pool.submit(post, server, chat(f"words=8 gate={gate}"))
        until(lambda: server.status().running == 1, what="the start")
        answer = post(server, chat("words=2 die=1 blame", stream=stream))
        gate.touch()
        assert other.result(20).status_code == 200
    assert "llama.cpp crashed or took too long on it" in answer.text
    assert stream or answer.status_code == 400
    assert server.status().restarts == 1
    assert post(server, chat("a")).status_code == 200


@pytest.mark.parametrize("how", ["", " killed"])
def test_whose_text_ends_the_engine_fails_alone(serve: Serve, tmp_path: Path, how: str) -> None:
    server, gate = serve(), tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        other = pool.submit(post, server, chat(f"words=8 gate={gate}"))
        until(lambda: server.status().running == 1, what="the start")
        bad = pool.submit(post, server, chat(f"unreadable{how}"))
        until(lambda: server.status().restarts > 0, what="a death")
        gate.touch()
        answer = bad.result(20)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "request_ends_engine")
        assert other.result(20).status_code == 200
    assert server.status().restarts == 2
    assert post(server, chat("a")).status_code == 200


def test_a_count_whose_text_ends_the_engine_fails_alone(serve: Serve) -> None:
    server = serve()
    with server.http() as client:
        answer = client.post("/v1/tokenize", json={"prompt": "unreadable"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "request_ends_engine")
        assert client.post("/v1/tokenize", json={"prompt": "a b"}, headers={"Prefer": "wait=10"}).json()["count"] == 2


def test_innocent_requests_survive_one_that_ends_the_engine_in_their_batch(serve: Serve, tmp_path: Path) -> None:
    server, gate = serve(slots=4), tmp_path / "gate"
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(post, server, chat(f"words=3 gate={gate}")) for _ in range(3)]
        until(lambda: server.status().running == 3, what="the start")
        bad = pool.submit(post, server, chat("words=3 die=1"))
        until(lambda: server.status().restarts > 0, what="a death")
        gate.touch()
        assert [other.result(20).status_code for other in others] == [200, 200, 200]
        assert bad.result(20).json()["error"]["code"] == "request_ends_engine"
    assert server.status().restarts == 2


def post(server: ServerProcess, body: dict[str, Any]) -> httpx2.Response:
    with server.http() as client:
        return client.post(CHAT, json=body, headers={"Prefer": "wait=10"})


def test_an_engine_that_keeps_dying_is_started_less_and_less_often(serve: Serve) -> None:
    server = serve(FakeModel(die_ready=0.05))
    until(lambda: server.status().restarts >= 2, what="two restarts")
    begin = monotonic()
    until(lambda: server.status().restarts >= 4, what="four restarts")
    assert monotonic() - begin > 2
    with server.http() as client:
        assert client.get("/livez").status_code == 200


def test_an_engine_that_answered_is_followed_at_once_however_often_it_dies(serve: Serve) -> None:
    server = serve(FakeModel(load=0.05))
    with server.http() as client:
        for _ in range(5):
            begin = monotonic()
            client.post(CHAT, json=chat("words=1"), headers={"Prefer": "wait=9"}).raise_for_status()
            assert monotonic() - begin < 2
            kill_engine(server)


def test_what_the_engine_said_last_is_in_the_reason(serve: Serve) -> None:
    server = serve()
    kill_engine(server)
    until(lambda: server.status().restarts == 1, 2, "the restart")
    assert "the engine ended with signal 9" in server.log.read_text()


def send(sock: socket.socket, text: str) -> None:
    body = f'{{"messages": [{{"role": "user", "content": "{text}"}}], "stream": true}}'.encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + body)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65_536):
        parts.append(part)
    return b"".join(parts)
