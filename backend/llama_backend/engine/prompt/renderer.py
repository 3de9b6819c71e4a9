"""The engine's side of a model's chat template, which runs in a process of its own (see render_process)."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import msgspec

from llama_backend.engine.prompt.render_messages import MEMORY, SECONDS, Fragment, Rendered, Source, read_payload
from llama_backend.errors import InvalidRequest
from llama_backend.wire.api import ChatMessage
from llama_backend.wire.ipc import framed

MODULE = "llama_backend.engine.prompt.render_process"
WALL_SECONDS = 15.0
"""How long rendering may take. Normally the limit of processor time (SECONDS) is reached first."""
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
        """The id of the present process."""
        return self._process.pid

    def open(self, source: str | None, bos: str, eos: str) -> None:
        """Compiles the template, or Llama 2's own where `source` is None, and tries it.

        Raises InvalidRequest where it is broken, or where rendering a single short message ends its process.
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
    """The process of a template, which handles one message after another."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair()
        self._sock.settimeout(WALL_SECONDS)
        self._file = self._sock.makefile("rb")
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", MODULE],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={name: value for name, value in os.environ.items() if name in _KEPT},
            )
        self.ended = False

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    def open(self, source: Source) -> None:
        """Sends the template, which must come first. Ends the process where it does not compile."""
        try:
            self.ask(source)
        except InvalidRequest:
            self.end()
            raise

    def ask(self, message: Source | list[ChatMessage]) -> list[Fragment]:
        """The fragments that the process replies with. Raises InvalidRequest with its error or with how it ended."""
        try:
            self._sock.sendall(framed(msgspec.msgpack.encode(message)))
            rendered = msgspec.msgpack.decode(read_payload(self._file), type=Rendered)
        except (OSError, msgspec.DecodeError) as error:
            raise InvalidRequest(f"the model's chat template {self.end()}", param="messages") from error
        if rendered.error is not None:
            raise InvalidRequest(rendered.error, param="messages")
        return rendered.fragments

    def end(self) -> str:
        """Ends the process; returns why it has not replied, as the end of a sentence that begins with the template."""
        self.ended = True
        self._file.close()
        self._sock.close()
        try:
            code = self._popen.wait(0.1)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
            return "takes too long"
        if code == -signal.SIGPROF:
            return f"takes more than {SECONDS:g} s of processor time"
        return f"has crashed its process, whose limit is {MEMORY >> 20} MiB of memory"
