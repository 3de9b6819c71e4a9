"""A model's chat template, at work in a process of its own; see render_process."""

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
_WALL_SECONDS = 15.0
"""How long an answer may take; the limit that counts is the one of the processor time."""
_KEPT = frozenset({"PATH", "PYTHONPATH", "HOME", "TZ", "LANG", "LC_ALL", "LD_LIBRARY_PATH"})
"""What of the environment a template's process gets; there may be keys in the rest."""


class Renderer:
    """Renders conversations; any thread may ask. A process that a template ended is followed by another.

    The first one is started at once, so that it is there when the template is.
    """

    def __init__(self) -> None:
        self._source = Source(text=None)
        self._lock = threading.Lock()
        self._process = _Process()

    def open(self, source: str | None, bos: str, eos: str) -> None:
        """Compiles the template, None being Llama 2's own, and tries it.

        Raises InvalidRequest where it is broken, or where the shortest conversation takes it too long.
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
        """The prompt up to where the answer begins; InvalidRequest where the template refuses the messages."""
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
    """One process, which answers one question after another."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair()
        self._sock.settimeout(_WALL_SECONDS)
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

    def open(self, source: Source) -> None:
        """The first question; a process that cannot compile its template ends."""
        try:
            self.ask(source)
        except InvalidRequest:
            self.end()
            raise

    def ask(self, question: Source | list[ChatMessage]) -> list[Fragment]:
        """What the template makes of a question; raises InvalidRequest with what the process says, or how it ended."""
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
        """Ends the process, and says for a person why an answer is missing."""
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
        return f"ends its process, which may have {MEMORY >> 20} MiB of memory"

    def _receive(self) -> bytes:
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            raise ConnectionResetError
        return self._file.read(HEADER.unpack(header)[0])
