"""The programs that are measured: this backend, and those it is compared with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig

START_SECONDS = 60.0


@dataclass(frozen=True)
class Program:
    """A server under test."""

    name: str
    command: list[str]
    ready_path: str


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ours(model: Path, slots: int | None, context: int, threads: int | None, port: int, **options: Any) -> Program:
    """Our server; `threads` None lets it choose, `options` are others of its EngineConfig."""
    engine = EngineConfig(path=str(model), slots=slots, context=context, threads=threads, **options)
    config = ServerConfig(model="m", engine=engine, host="127.0.0.1", port=port)
    command = [sys.executable, "-m", "llama_backend.server", msgspec.json.encode(config).decode()]
    return Program("llama-chat", command, "/readyz")


def llama_server(folder: Path, model: Path, slots: int, context: int, threads: int, port: int) -> Program:
    sizes = ["-np", str(slots), "-c", str(slots * context), "-t", str(threads)]
    command = [str(folder / "llama-server"), "-m", str(model), *sizes, "--port", str(port), "--log-disable"]
    return Program("llama-server", command, "/health")


def llama_cpp_server(model: Path, context: int, threads: int, port: int) -> Program:
    sizes = ["--n_ctx", str(context), "--n_threads", str(threads), "--n_threads_batch", str(threads)]
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(model), *sizes]
    options = ["--port", str(port), "--interrupt_requests", "False"]
    return Program("llama_cpp.server", command + options, "/v1/models")


def reference_folder() -> Path | None:
    """The folder of llama.cpp's own programs, from LLAMA_REFERENCE."""
    value = os.environ.get("LLAMA_REFERENCE")
    return Path(value) if value else None


@contextmanager
def running(program: Program, port: int) -> Iterator[str]:
    """Starts a program, waits until it is ready, gives its URL, and ends it."""
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(program.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(url + program.ready_path, process)
        yield url
    finally:
        process.terminate()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise RuntimeError(f"{process.args!r} did not start")
