"""Requests whose time is over: queued, streaming, whole, and while the model loads."""

from __future__ import annotations

import json
from time import monotonic
from typing import Any

import openai
import pytest

from llama_backend.wire.headers import REQUEST_TIMEOUT, SHOULD_RETRY
from tests.backend.server.conftest import Serve
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, MODEL, ServerProcess, chat
from tests.support.wait import until

SLOW = "words=1000 delay=0.1"


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "inf", "", "1e999"])
def test_a_header_that_is_no_time(shared: ServerProcess, value: str) -> None:
    with shared.http(headers={REQUEST_TIMEOUT: value}) as client:
        answer = client.post(CHAT, json=chat())
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, REQUEST_TIMEOUT)


@pytest.mark.parametrize("value", [0, -1, "soon", 1e9])
def test_a_field_that_is_no_time(shared: ServerProcess, value: Any) -> None:
    with shared.http() as client:
        answer = client.post(CHAT, json=chat(timeout=value))
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "timeout")


def test_enough_time_changes_nothing(shared: ServerProcess) -> None:
    with shared.http(headers={REQUEST_TIMEOUT: "30"}) as client:
        answer = client.post(CHAT, json=chat("a b", timeout=20.5))
    assert answer.json()["choices"][0]["message"]["content"] == "a b"


def test_a_whole_answer_that_takes_too_long(serve: Serve) -> None:
    server, begin = serve(), monotonic()
    with server.http() as client:
        answer = client.post(CHAT, json=chat(SLOW, timeout=0.3))
    assert monotonic() - begin < 3
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (504, "deadline_exceeded", "timeout_error")
    assert error["timeout"] == 0.3
    server.wait_idle(2)


def test_of_a_stream_what_came_stays(serve: Serve) -> None:
    server = serve()
    with server.http(headers={REQUEST_TIMEOUT: "0.5"}) as client:
        answer = client.post(CHAT, json=chat("words=3 gate=/never", stream=True))
    assert answer.status_code == 200
    events = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line]
    assert events[-1]["error"]["code"] == "deadline_exceeded"
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in events[:-1]) == "w0 w1"
    server.wait_idle(2)


def test_who_waits_for_a_slot_gives_up_the_place(serve: Serve) -> None:
    server = serve(slots=1)
    with server.openai() as client:
        running = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": SLOW}], stream=True)
        next(running)
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError if not stream else openai.APIError) as caught:
                list(
                    client.chat.completions.create(
                        model=MODEL,
                        messages=[{"role": "user", "content": "a"}],
                        stream=stream,
                        extra_body={"timeout": 0.2},
                    )
                )
            assert caught.value.code == "deadline_exceeded"
        until(lambda: server.status().waiting == 0, 2, "an empty queue")
        running.close()


def test_while_the_model_loads(serve: Serve) -> None:
    server, begin = serve(FakeModel(load=20), ready=False), monotonic()
    with server.http(headers={"Prefer": "wait=10"}) as client:
        answer = client.post(CHAT, json=chat(timeout=0.2))
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.headers[SHOULD_RETRY] == "false"
    assert monotonic() - begin < 3


def test_the_limit_of_the_server(serve: Serve) -> None:
    server = serve(request_timeout=0.3)
    with server.http() as client:
        for fields in ({}, {"timeout": 100}):
            answer = client.post(CHAT, json=chat(SLOW, **fields))
            assert answer.json()["error"]["timeout"] == 0.3
