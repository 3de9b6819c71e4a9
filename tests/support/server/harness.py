"""Real server processes for tests: started, asked and ended."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from openai import DefaultHttpxClient, OpenAI

from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig
from llama_backend.wire.status import BackendStatus
from tests.support.server.fake_engine import MODULE, FakeModel
from tests.support.wait import until

ROOT = Path(__file__).parents[3]
MODEL = "fake"
CHAT = "/v1/chat/completions"


def python_path() -> str:
    """Where a server process finds the sources and the fake engine."""
    roots = [str(ROOT / name) for name in ("tui", "backend", "convert")]
    return os.pathsep.join([*roots, str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def write_model(path: Path, model: FakeModel | None = None) -> Path:
    path.write_bytes(msgspec.json.encode(model or FakeModel()))
    return path


def fake_config(folder: Path, model: FakeModel | None = None, **settings: Any) -> ServerConfig:
    """A server on a fake engine; the fields of its EngineConfig may be among the settings."""
    path = folder / "fake.json"
    if model is not None or not path.exists():
        write_model(path, model)
    names = set(EngineConfig.__struct_fields__)
    fields = {name: settings.pop(name) for name in names & set(settings)}
    engine = EngineConfig(**(dict[str, Any](path=str(path), module=MODULE) | fields))
    defaults = dict[str, Any](model=MODEL, engine=engine, socket=str(folder / "s.sock"))
    return ServerConfig(**(defaults | settings))


def free_port() -> int:
    """A port that nobody listens on, and that the system gives to no connection meanwhile."""
    least = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.randrange(least // 2, least)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def chat(text: str = "hello there", **fields: Any) -> dict[str, Any]:
    """The body of a chat request."""
    return {"messages": [{"role": "user", "content": text}], **fields}


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def accepts(path: str) -> bool:
    """Whether anybody listens on a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


class ServerProcess:
    """`python -m llama_backend.server` with a configuration, and clients of it."""

    def __init__(self, config: ServerConfig, log: Path) -> None:
        self.config = config
        self.log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "llama_backend.server", msgspec.json.encode(config).decode()],
                stdout=file,
                stderr=file,
                env=os.environ | {"PYTHONPATH": python_path()},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_up(self) -> None:
        """Returns when HTTP is answered, whatever the state of the engine."""
        until(self._answers, 30, f"the start of the server\n{self.log.read_text()}")

    def wait_state(self, *states: str, seconds: float = 30.0) -> None:
        until(lambda: self.status().state in states, seconds, f"the state {states}")

    def wait_log(self, text: str, seconds: float = 20.0) -> None:
        """Returns when the server has logged a text."""
        until(lambda: text in self.log.read_text(), seconds, f"{text!r} in the log")

    def wait_idle(self, seconds: float = 20.0) -> None:
        """Returns when no request is left, neither in the server nor in the engine."""

        def idle() -> bool:
            now = self.status()
            return (now.running, now.waiting, now.active) == (0, 0, 0)

        until(idle, seconds, "the end of all requests")

    def status(self) -> BackendStatus:
        with self.http() as client:
            return msgspec.json.decode(client.get("/v1/status").content, type=BackendStatus)

    def http(self, **settings: Any) -> httpx2.Client:
        """A client over the Unix socket."""
        return httpx2.Client(base_url="http://localhost", transport=self._over_socket(), timeout=30, **settings)

    def tcp(self, **settings: Any) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=30, **settings)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.config.port}"

    def openai(self, api_key: str = "none") -> OpenAI:
        """The official client over the Unix socket."""
        http = DefaultHttpxClient(transport=self._over_socket())
        return OpenAI(base_url="http://localhost/v1", http_client=http, api_key=api_key, max_retries=0)

    def openai_tcp(self, api_key: str = "none") -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=api_key, max_retries=0)

    def raw(self) -> socket.socket:
        """A connection to the Unix socket, for what no HTTP client would send."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(10)
        try:
            sock.connect(str(self.config.socket))
        except OSError:
            sock.close()
            raise
        return sock

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> None:
        """Ends the server, at once where it has not ended by itself soon after SIGTERM."""
        self.process.terminate()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self._force()

    def _force(self) -> None:
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _over_socket(self) -> httpx2.HTTPTransport:
        return httpx2.HTTPTransport(uds=self.config.socket)

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        if not accepts(str(self.config.socket)):
            return False
        with self.http() as client:
            return client.get("/livez").status_code == 200


class Reader(threading.Thread):
    """Reads a stream to its end; it is there once the answer holds `begin`."""

    def __init__(self, server: ServerProcess, body: dict[str, Any], begin: str, wait: int = 10) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._body = body | {"stream": True}
        self._headers = {"Prefer": f"wait={wait}"}
        self.received = ""
        self.error: Exception | None = None
        self.start()
        until(lambda: begin in self.received, what=repr(begin))

    def run(self) -> None:
        try:
            with (
                self._server.http(headers=self._headers) as client,
                client.stream("POST", CHAT, json=self._body) as answer,
            ):
                for part in answer.iter_text():
                    self.received += part
        except httpx2.HTTPError as error:
            self.error = error

    def text(self) -> str:
        """All of it."""
        self.join(20)
        assert not self.is_alive()
        return self.received


@contextmanager
def serving(config: ServerConfig, folder: Path) -> Iterator[ServerProcess]:
    """A server that answers HTTP, for the length of a block."""
    server = ServerProcess(config, folder / "server.log")
    try:
        server.wait_up()
        yield server
    finally:
        server.end()
