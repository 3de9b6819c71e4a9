"""Keys and texts are in nothing that a server writes or says, but for what their sender is told of its own text."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from llama_backend.server_config import LogFormat
from llama_backend.wire.headers import RESUMABLE
from tests.backend.server.access.test_security import send
from tests.backend.server.http.test_metrics_page import read
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, ServerProcess, chat, fake_config, free_port, serving
from tests.support.wait import until

KEY = "sk-correct-horse-battery-staple"
WRONG = "sk-wrong-donkey"
TEXT = "a-prompt-of-mine"
STREAM = "a-name-made-at-random"
RIGHT = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(params=["text", "json"])
def keyed_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a key, that logs in one of the two ways."""
    kind: LogFormat = request.param
    keys = tmp_path / "keys"
    keys.write_text(f"{KEY} name=alice requests_per_minute=60\n")
    config = fake_config(
        tmp_path, FakeModel(), host="127.0.0.1", port=free_port(), api_key_file=str(keys), log_format=kind, slots=1
    )
    with serving(config, tmp_path) as server:
        server.wait_state("ready")
        yield server


def answers(client: httpx2.Client) -> Iterator[httpx2.Response]:
    """What is said to requests of all kinds, good and bad."""
    yield client.get("/v1/models")
    for key in ({}, {"Authorization": f"Bearer {WRONG}"}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": KEY}):
        yield client.get("/v1/models", headers={"Authorization": ""} | key)
    for name in ("api_key", "key", "access_token"):
        yield client.post(f"{CHAT}?{name}={KEY}", json={"messages": []})
        yield client.get(f"/v1/nothing?{name}={KEY}")
        yield client.get(f"/livez?{name}={KEY}")
    for body in ({"messages": KEY}, {"messages": [{"role": "user"}], "temperature": KEY}, chat("a", model=5)):
        yield client.post(CHAT, json=body)
    yield client.post(CHAT, content=f'{{"messages": "{TEXT}'.encode())
    yield client.post("/v1/embeddings", json={"input": [TEXT]})
    yield client.post("/v1/tokenize", json={"prompt": TEXT})
    yield client.get("/v1/streams/an-other-name-at-random")
    yield client.delete("/v1/kv-states")
    yield client.get("/v1/models", headers={"Origin": "http://evil.example"})
    yield client.request("OPTIONS", CHAT, headers={"Access-Control-Request-Headers": "Authorization"})


def provoke(server: ServerProcess, client: httpx2.Client) -> None:
    """Brings about what is logged: engines that die, bad key files, requests that are none, clients that go away."""
    assert client.post(CHAT, json=chat(TEXT, stream=True), headers={RESUMABLE: STREAM}).status_code == 200
    client.post(CHAT, json=chat(f"{TEXT} error"))
    client.post(CHAT, json=chat(f"{TEXT} x die=1", stream=True))
    server.wait_state("ready")
    keys = Path(str(server.config.api_key_file))
    good = keys.read_text()
    for bad in (f"{KEY} weight={KEY}\n", f"{KEY} {WRONG}\n", f"name=alice {KEY}\n", f"{KEY}\0\n\udcff"):
        keys.write_text(bad, errors="surrogateescape")
        client.get("/v1/models")
    keys.write_text(good)
    for head in (
        f"GET /?key={KEY} BAD",
        f"GET /{KEY} HTTP/9.9",
        f"{KEY} / HTTP/1.1",
        f"GET / HTTP/1.1\r\nHost\x00: {KEY}",
    ):
        send(server, f"{head}\r\n\r\n".encode())
    with suppress(httpx2.ReadTimeout):
        client.post(CHAT, json=chat(f"{TEXT} words=1000 delay=0.05"), timeout=0.2)
    server.wait_idle()


def test_keys_and_texts_are_written_and_said_nowhere(keyed_server: ServerProcess) -> None:
    with keyed_server.tcp(headers=RIGHT) as client:
        said = [f"{answer.headers} {answer.text}" for answer in answers(client)]
        provoke(keyed_server, client)
        said += [client.get(path).text for path in ("/metrics", "/v1/status", "/readyz", "/livez")]
        said += [
            Path(f"/proc/{pid}/cmdline").read_text() for pid in (keyed_server.pid, keyed_server.status().engine_pid)
        ]
    keyed_server.signal(signal.SIGTERM)
    keyed_server.process.wait(20)
    log = keyed_server.log.read_text()
    assert "cannot be read" in log
    for text in (log, *said):
        for secret in (KEY, WRONG, TEXT, STREAM):
            assert secret not in text, text
    if keyed_server.config.log_format == "json":
        for line in log.splitlines():
            assert {"time", "level", "logger", "message"} <= json.loads(line).keys()


def test_requests_make_no_new_lines_on_the_page_of_metrics(keyed_server: ServerProcess) -> None:
    def lines(client: httpx2.Client) -> int:
        return len(client.get("/metrics").text.splitlines())

    with keyed_server.tcp(headers=RIGHT) as client:
        assert client.post(CHAT, json=chat("a", model="other")).status_code == 404
        client.get("/v1/nothing")
        until(lambda: read(client)("errors_total") >= 2, what="the count of errors")
        before = lines(client)
        for number in range(20):
            client.post(CHAT, json=chat("a", model=f"m{number}"))
            client.get(f"/v1/models/m{number}")
            client.get(f"/v1/nothing{number}", headers={"Authorization": f"Bearer {number}"})
            client.request(f"M{number}", "/livez")
        assert lines(client) <= before + 1
