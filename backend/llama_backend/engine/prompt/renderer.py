"""The engine's side of a model's chat template, which runs in a process of its own (see render_process)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import msgspec

from llama_backend.engine.prompt.render_messages import MEMORY, SECONDS, Fragment, Rendered, Source
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import ChatMessage
from llama_backend.wire.ipc import HEADER

MODULE = "llama_backend.engine.prompt.render_process"
WALL_SECONDS = 15.0
"""How long an answer may take. The limit of processor time (SECONDS) should be reached first."""
_KEPT = frozenset({"PATH", "PYTHONPATH", "HOME", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH"})
"""The environment variables that a template's process gets; others may hold keys."""


class Renderer:
    """Renders conversations; any thread may use it. Where a template has ended its process, another one is started.

    The first process is started at once, so that it is ready when the template is known.
    """

    def __init__(self) -> None:
        self._source = Source(text=None)
        self._lock = threading.Lock()
        self._process = _Process()

    @property
    def pid(self) -> int:
        """The number of the process at work."""
        return self._process.pid

    def open(self, source: str | None, bos: str, eos: str) -> None:
        """Compiles the template, or Llama 2's own where that is None, and tries it.

        Raises InvalidRequest where it is broken, or where the shortest conversation ends its process.
        """
        self._source = Source(text=source, bos=bos, eos=eos)
        with self._lock:
            self._process.open(self._source)
            try:
                self._process.ask([ChatMessage("user", "Hello")])
            except InvalidRequest:
                if self._process.ended:
                    raise

    def render(self, messages: list[ChatMessage]) -> list[Fragment]:
        """The prompt up to where the answer begins. Raises InvalidRequest where the template refuses the messages."""
        with self._lock:
            if self._process.ended:
                self._process = _Process()
                self._process.open(self._source)
            return self._process.ask(messages)

    def close(self) -> None:
        """Ends the process."""
        with self._lock:
            self._process.end()


class _Process:
    """One process of a template, which answers one question after another."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair()
        self._sock.settimeout(WALL_SECONDS)
        self._file = self._sock.makefile("rb")
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name in _KEPT},
            )
        self.ended = False

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    def open(self, source: Source) -> None:
        """Sends the template, which must come first. Where it does not compile, the process is ended."""
        try:
            self.ask(source)
        except InvalidRequest:
            self.end()
            raise

    def ask(self, question: Source | list[ChatMessage]) -> list[Fragment]:
        """The fragments that answer a question. Raises InvalidRequest with the process's error or with how it ended."""
        payload = msgspec.msgpack.encode(question)
        try:
            self._sock.sendall(HEADER.pack(len(payload)) + payload)
            rendered = msgspec.msgpack.decode(self._receive(), type=Rendered)
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidRequest(f"the model's chat template {self.end()}", param="messages") from error
        if rendered.error is not None:
            raise InvalidRequest(rendered.error, param="messages")
        return rendered.fragments

    def end(self) -> str:
        """Ends the process, and returns why it has not answered, as the rest of a sentence about the template."""
        self.ended = True
        self._file.close()
        self._sock.close()
        try:
            code = self._child.wait(0.1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            return "takes too long"
        if code == -signal.SIGPROF:
            return f"takes more than {SECONDS:g} s of processor time"
        return f"has crashed its process, whose limit is {MEMORY >> 20} MiB of memory"

    def _receive(self) -> bytes:
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise ConnectionResetError
        return self._file.read(HEADER.unpack(header)[0])
