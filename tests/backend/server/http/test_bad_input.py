"""Whatever is sent, the answer is a 4xx with an error as OpenAI writes it, and the server goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest

from tests.support.server.harness import CHAT, ServerProcess, chat

MIB = 1024 * 1024
MESSAGES = '"messages": [{"role": "user", "content": "a"}]'
EXPONENTIAL = "\n".join(f"a{n} ::= a{n + 1} a{n + 1} | a{n + 1}" for n in range(1, 24)) + '\na24 ::= "x"?'
"""With these rules llama.cpp would work for years."""
WRONG_FIELDS: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": []}),
    ("messages", {"messages": None}),
    ("messages", {"messages": "hello"}),
    ("messages[0]", {"messages": ["hello"]}),
    ("messages[0].role", {"messages": [{"content": "a"}]}),
    ("messages[0].role", {"messages": [{"role": "wizard", "content": "a"}]}),
    ("messages[0].content", {"messages": [{"role": "user", "content": 5}]}),
    ("messages[0].content[0].type", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": 1.5}),
    ("max_tokens", {"max_tokens": 10**30}),
    ("max_completion_tokens", {"max_completion_tokens": 10**30}),
    ("temperature", {"temperature": "hot"}),
    ("temperature", {"temperature": -0.1}),
    ("temperature", {"temperature": 1e9}),
    ("top_p", {"top_p": 1.1}),
    ("top_k", {"top_k": -1}),
    ("min_p", {"min_p": -0.5}),
    ("repeat_penalty", {"repeat_penalty": 0}),
    ("seed", {"seed": 2**70}),
    ("seed", {"seed": "lucky"}),
    ("stop", {"stop": 5}),
    ("stop[1]", {"stop": ["a", 5]}),
    ("stop", {"stop": ["x"] * 17}),
    ("logit_bias", {"logit_bias": {"word": 1}}),
    ("logit_bias", {"logit_bias": {"²": 1}}),
    ("logit_bias", {"logit_bias": {"-1": 1}}),
    ("logit_bias", {"logit_bias": {"9" * 30: 1}}),
    ("logit_bias", {"logit_bias": {"9" * 5000: 1}}),
    ("logit_bias[...]", {"logit_bias": {"1": 1000}}),
    ("stream", {"stream": "yes"}),
    ("stream_options", {"stream_options": True}),
    ("model", {"model": 5}),
    ("n", {"n": 0}),
    ("n", {"n": 129}),
    ("n", {"n": 10**30}),
    ("logprobs", {"logprobs": 5}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": -1}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("mirostat", {"mirostat": 3}),
    ("typical_p", {"typical_p": 0}),
    ("dry_sequence_breakers[0]", {"dry_sequence_breakers": [""]}),
    ("dry_base", {"dry_base": 0.5}),
    ("xtc_probability", {"xtc_probability": 2}),
    ("adaptive_decay", {"adaptive_decay": 1}),
    ("tools", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ("functions", {"functions": [{"name": "f"}]}),
    ("response_format.type", {"response_format": {"type": "xml"}}),
    ("response_format.json_schema", {"response_format": {"type": "json_schema"}}),
    ("response_format", {"response_format": {"type": "json_object"}, "grammar": "root ::= [a]"}),
    ("grammar", {"json_schema": {}, "grammar": "root ::= [a]"}),
    ("grammar", {"grammar": 'root ::= "a'}),
    ("grammar", {"grammar": "rot ::= [a]"}),
    ("grammar", {"grammar": "root ::= root [a]"}),
    ("grammar", {"grammar": ""}),
    ("grammar", {"grammar": "root ::= [a]\0"}),
    ("grammar", {"grammar": "a" * 65_537}),
    ("grammar", {"grammar": "root ::= " + "(" * 30_000}),
    ("grammar", {"grammar": f"root ::= a1\n{EXPONENTIAL}"}),
    ("json_schema", {"json_schema": {"type": "frog"}}),
    ("json_schema", {"json_schema": {"type": "string", "pattern": "a"}}),
    ("json_schema", {"json_schema": False}),
    ("json_schema", {"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}),
]
WRONG_PROMPTS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {}),
    ("prompt", {"prompt": ""}),
    ("prompt", {"prompt": []}),
    ("prompt", {"prompt": ["a", "b"]}),
    ("prompt", {"prompt": [1, "a"]}),
    ("prompt", {"prompt": ["a", 1]}),
    ("prompt[0]", {"prompt": [True]}),
    ("prompt[0]", {"prompt": [[1, 2]]}),
    ("prompt[0]", {"prompt": [10**30]}),
    ("prompt[1]", {"prompt": [1, -1]}),
    ("echo", {"prompt": "a", "echo": True}),
    ("suffix", {"prompt": "a", "suffix": "b"}),
]
NOT_JSON: dict[str, bytes] = {
    "nothing": b"",
    "a word": b"hello",
    "cut off": b'{"messages": [{"role": "us',
    "NaN": f'{{{MESSAGES}, "temperature": NaN}}'.encode(),
    "infinite": f'{{{MESSAGES}, "temperature": 1e999}}'.encode(),
    "null": b"null",
    "a list": b"[]",
    "nested": b"[" * 100_000,
    "nested in a field": f'{{{MESSAGES}, "tools": {"[" * 50_000}{"]" * 50_000}}}'.encode(),
    "nested in an unknown field": f'{{{MESSAGES}, "x": {"[" * 50_000}{"]" * 50_000}}}'.encode(),
    "no UTF-8": b'{"messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "no UTF-8 in a key": b'{"messages": [{"role": "user", "content": "a"}], "\xff": "\xff"',
    "a lone surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "a surrogate in UTF-8": b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}',
    "UTF-16": f"{{{MESSAGES}}}".encode("utf-16"),
    "binary": bytes(range(256)) * 10,
}


@pytest.fixture
def http(shared: ServerProcess) -> Iterator[httpx2.Client]:
    with shared.http() as client:
        yield client


def error_of(answer: httpx2.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = answer.json()["error"]
    assert {"message", "type", "param", "code"} <= set(error)
    assert isinstance(error["message"], str)
    assert error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) < 1000
    return error


@pytest.mark.parametrize(("param", "fields"), WRONG_FIELDS, ids=[str(case)[:60] for case in WRONG_FIELDS])
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_of_a_chat_is_named(
    http: httpx2.Client, param: str, fields: dict[str, Any], stream: bool
) -> None:
    error = error_of(http.post(CHAT, json=chat("a", stream=stream) | fields))
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
    assert error["param"] == param
    assert param.split("[")[0] in error["message"]


@pytest.mark.parametrize(("param", "fields"), WRONG_PROMPTS, ids=[str(case)[:60] for case in WRONG_PROMPTS])
def test_a_wrong_prompt_is_named(http: httpx2.Client, param: str, fields: dict[str, Any]) -> None:
    assert error_of(http.post("/v1/completions", json=fields))["param"] == param


@pytest.mark.parametrize(
    ("param", "fields"),
    [
        ("messages", {}),
        ("messages", {"messages": [{"role": "user", "content": "a"}], "prompt": "a"}),
        ("prompt", {"prompt": 5}),
        ("messages[0].role", {"messages": [{"role": "x"}]}),
    ],
)
def test_a_wrong_count_is_named(http: httpx2.Client, param: str, fields: dict[str, Any]) -> None:
    assert error_of(http.post("/v1/tokenize", json=fields))["param"] == param


@pytest.mark.parametrize("name", NOT_JSON)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_what_is_not_json(http: httpx2.Client, path: str, name: str) -> None:
    assert error_of(http.post(path, content=NOT_JSON[name]))["code"] == "invalid_request"


def test_fields_that_mean_nothing_here_are_ignored(http: httpx2.Client) -> None:
    body = chat("a", user="me", n=1, tools=[], logprobs=False, response_format={"type": "text"}, metadata={"a": "b"})
    assert http.post(CHAT, json=body).status_code == 200


def test_a_body_of_10_mb(http: httpx2.Client) -> None:
    body = json.dumps(chat("x" * 10 * MIB)).encode()
    assert error_of(http.post(CHAT, content=body), 413)["code"] == "request_too_large"


def test_a_body_of_10_mb_without_a_length(http: httpx2.Client) -> None:
    body = json.dumps(chat("x" * 10 * MIB)).encode()
    parts = (body[start : start + 65_536] for start in range(0, len(body), 65_536))
    try:
        answer = http.post(CHAT, content=parts)
    except (httpx2.WriteError, httpx2.ReadError):
        return
    assert error_of(answer, 413)["code"] == "request_too_large"


@pytest.mark.parametrize("length", ["-5", "abc", "5, 6", "99999999999999999999999999"])
def test_a_wrong_content_length(shared: ServerProcess, length: str) -> None:
    with shared.raw() as sock:
        sock.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{{}}".encode())
        assert sock.recv(100).split()[1] in (b"400", b"413")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", CHAT, 405, "method_not_allowed"),
        ("DELETE", CHAT, 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/livez", 405, "method_not_allowed"),
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("POST", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/models/nothing", 404, "model_not_found"),
        ("GET", "/v1/models/%ff%00", 404, "model_not_found"),
        ("GET", "/v1/models/../../etc/passwd", 404, "not_found"),
        ("GET", "/%ed%a0%80", 404, "not_found"),
    ],
)
def test_a_wrong_method_or_path(http: httpx2.Client, method: str, path: str, status: int, code: str) -> None:
    assert error_of(http.request(method, path), status)["code"] == code


@pytest.mark.parametrize("target", [b"/v1/models?\xff", b"/v1/nothing?\xff", b"/livez?\xff", b"/v1/m\xff"])
def test_a_request_line_that_is_no_ascii(shared: ServerProcess, target: bytes) -> None:
    with shared.raw() as sock:
        sock.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert sock.recv(100).split()[1] in (b"200", b"400", b"404")


@pytest.mark.parametrize("path", ["/livez", "/startupz", "/readyz", "/v1/models", "/v1/status"])
def test_head(http: httpx2.Client, path: str) -> None:
    answer = http.head(path)
    assert answer.status_code == 200
    assert answer.content == b""


def test_an_empty_prompt_is_counted(http: httpx2.Client) -> None:
    assert http.post("/v1/tokenize", json={"prompt": "a b"}).json()["count"] == 2


def test_the_server_has_no_error_in_its_log(shared: ServerProcess) -> None:
    assert msgspec.json.decode(msgspec.json.encode(shared.status()))["state"] == "ready"
    assert "ERROR" not in shared.log.read_text()
