"""Models whose files are meant to do harm: what fails is said, and nobody else is in its way."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic

import pytest

from tests.backend.server.conftest import Serve
from tests.support.gguf_files import with_string
from tests.support.server.harness import CHAT, Reader, ServerProcess, chat

Start = Callable[..., ServerProcess]
LOOPS = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set ns = namespace(s='a') %}{% for i in range(34) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"
PLAIN = "{% for message in messages %}{{ message.content }}<|im_end|>{% endfor %}"


@pytest.fixture
def start(serve: Serve, tmp_path: Path, demo_model: Path) -> Start:
    """Starts servers on the demo model with another string in its header."""

    def start(key: str, value: str, ready: bool = True) -> ServerProcess:
        path = tmp_path / "hostile.gguf"
        path.write_bytes(with_string(demo_model.read_bytes(), key, value))
        return serve(ready=ready, path=str(path), module="llama_backend.engine", context=512, slots=2, threads=1)

    return start


def test_a_tokenizer_that_ends_llama_cpp_ends_no_more_than_two_engines(start: Start) -> None:
    server = start("tokenizer.ggml.model", "llama")
    with server.http(headers={"Prefer": "wait=20"}) as client:
        for _ in range(2):
            answer = client.post(CHAT, json=chat())
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (500, "request_ends_engine")
            assert "signal 6" in error["message"]
        assert client.get("/livez").status_code == 200
    assert server.status().restarts == 4


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if %}", "chat template is broken: Expected an expression"),
        (LOOPS, "chat template takes more than 1 s of processor time"),
    ],
)
def test_a_template_that_no_conversation_gets_through_is_told_at_once(start: Start, template: str, reason: str) -> None:
    server = start("tokenizer.chat_template", template, ready=False)
    server.wait_state("failed")
    with server.http() as client:
        assert reason in client.get("/readyz").json()["reason"]
        answer = client.post(CHAT, json=chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unreadable")
    assert reason in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("bomb", "reason"),
    [
        (LOOPS, "more than 1 s of processor time"),
        (DOUBLING, "more than 512 MiB of memory"),
        ("{{ 'a' * 8000000000 }}", "more than 512 MiB of memory"),
    ],
)
def test_a_template_that_explodes_harms_only_who_sets_it_off(start: Start, bomb: str, reason: str) -> None:
    server = start("tokenizer.chat_template", "{% if messages | length > 1 %}" + bomb + "{% endif %}" + PLAIN)
    body = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    other = Reader(server, chat("Count to a hundred.", max_tokens=120, ignore_eos=True), "data:")
    with ThreadPoolExecutor(4) as pool, server.http() as client:
        begin = monotonic()
        answers = list(pool.map(lambda _: client.post(CHAT, json=body), range(3)))
        assert monotonic() - begin < 30
        assert client.get("/livez").status_code == 200
    for answer in answers:
        assert answer.status_code == 400
        assert reason in answer.json()["error"]["message"]
    assert other.text().endswith("data: [DONE]\n\n")
    assert server.status().restarts == 0
