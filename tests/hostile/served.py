"""A server process on a fake engine that hostile clients talk to, and what holds after whatever they sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from llama_backend.server.engines.watched_process import resident_bytes
from tests.support.server.harness import CHAT, ServerProcess, chat, fake_config, free_port, serving

MOST_BYTES = 200 << 20
"""Of memory; one that has just started has about 40 MiB."""
REFUSALS = frozenset({400, 401, 403, 404, 405, 408, 413, 431})
FAULTS = ("Traceback", "ERROR", '"level":"error"')


class Served:
    """The server, and a client that behaves."""

    def __init__(self, server: ServerProcess, client: httpx2.Client) -> None:
        self.server = server
        self.client = client
        self._read = 0

    def check(self) -> None:
        """Raises AssertionError where the server does not go on as if nothing had been."""
        assert self.server.process.poll() is None
        answer = self.client.post(CHAT, json=chat("a b", model="fake"))
        assert answer.json()["choices"][0]["message"]["content"] == "a b", answer.text
        status = self.client.get("/v1/status").json()
        assert (status["state"], status["restarts"]) == ("ready", 0)
        assert resident_bytes(self.server.pid) < MOST_BYTES
        self._check_log()

    def _check_log(self) -> None:
        with self.server.log.open() as file:
            file.seek(self._read)
            text = file.read()
            self._read = file.tell()
        assert not any(fault in text for fault in FAULTS), text


@contextmanager
def served(folder: Path, **settings: Any) -> Iterator[Served]:
    """A server without a key on TCP and on the socket."""
    config = fake_config(folder, host="127.0.0.1", port=free_port(), socket=str(folder / "hostile.sock"), **settings)
    with serving(config, folder) as server:
        server.wait_state("ready")
        with server.http() as client:
            yield Served(server, client)


def check_error(content: bytes) -> dict[str, Any]:
    """The error in a body as OpenAI writes it; raises AssertionError where it is none."""
    error: dict[str, Any] = json.loads(content)["error"]
    assert {"message", "type", "param", "code"} <= error.keys()
    assert isinstance(error["code"], str)
    assert error["message"]
    assert "\n" not in error["message"]
    assert len(error["message"]) <= 1001
    assert len(content) < 5000
    return error
