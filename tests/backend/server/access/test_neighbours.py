"""One account sends what takes longest; another one is served all the same."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx2
import pytest

from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig
from tests.support.server.harness import CHAT, ServerProcess, chat, free_port, serving
from tests.support.wait import until

SPACES = " " * 4_000_000
LONGEST = " " * 160_000
"""A text that may fit: it is cut into tokens before that is known."""


@pytest.fixture
def server(tmp_path: Path, demo_model: Path) -> Iterator[ServerProcess]:
    (tmp_path / "keys").write_text("k1 name=hostile\nk2 name=good\n")
    engine = EngineConfig(path=str(demo_model), context=2048, slots=2, threads=1)
    config = ServerConfig(
        model="demo",
        engine=engine,
        socket=str(tmp_path / "s.sock"),
        host="127.0.0.1",
        port=free_port(),
        api_key_file=str(tmp_path / "keys"),
    )
    with serving(config, tmp_path) as server:
        server.wait_state("ready")
        yield server


def exponential(number: int) -> str:
    rules = [f"a{n} ::= a{n + 1} a{n + 1} | a{n + 1}" for n in range(1, 24)]
    return "\n".join([f'root ::= [a]{{3}} a1 "{number}"', *rules, 'a24 ::= "x"?'])


def post(server: ServerProcess, key: str, path: str, body: dict[str, Any], seconds: float = 60) -> httpx2.Response:
    with server.tcp(headers={"Authorization": f"Bearer {key}"}) as client:
        return client.post(path, json=body, timeout=seconds)


def test_an_account_that_sends_what_takes_longest_holds_up_no_other(server: ServerProcess) -> None:
    hostile = [("/v1/tokenize", {"prompt": SPACES})] * 8 + [("/v1/tokenize", {"prompt": LONGEST})] * 8
    hostile += [(CHAT, chat(grammar=exponential(number), max_tokens=1)) for number in range(64)]
    with ThreadPoolExecutor(len(hostile)) as pool:
        answers = [pool.submit(post, server, "k1", path, body) for path, body in hostile]
        until(lambda: server.status().active >= 30, what="a crowd")
        sleep(1)
        for fields in ({}, {"grammar": 'root ::= "yes" | "no"'}):
            begin = monotonic()
            answer = post(server, "k2", CHAT, chat(max_tokens=1, **fields))
            assert answer.status_code == 200
            assert monotonic() - begin < 5
        told = [answer.result() for answer in answers[:16]]
        server.process.kill()
    assert [answer.status_code for answer in told] == [400] * 8 + [200] * 8
    error = told[0].json()["error"]
    assert (error["code"], error["context"], error["prompt_tokens"]) == ("context_length_exceeded", 2048, 49383)
    assert "4000000 bytes long, at least 49383 tokens" in error["message"]
