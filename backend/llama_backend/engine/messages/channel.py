"""The engine's end of the socket to the server."""

from __future__ import annotations

import socket
import threading

from llama_backend.errors import BackendError
from llama_backend.wire.ipc import HEADER, MAX_FRAME, Command, Event, Refused, decode_command, frame


class Channel:
    """Frames on a socket; sending is safe from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._file = sock.makefile("rb")

    def send(self, event: Event) -> None:
        """Sends an event as one frame."""
        data = frame(event)
        with self._lock:
            self._sock.sendall(data)

    def receive(self) -> Command | None:
        """The next command, or None where the other side is gone."""
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (size,) = HEADER.unpack(header)
        payload = self._file.read(size) if size <= MAX_FRAME else b""
        return decode_command(payload) if len(payload) == size else None

    def close(self) -> None:
        """Closes the file that reads from the socket, but not the socket itself."""
        self._file.close()


def refusal(number: int, error: BackendError) -> Refused:
    """The event that says why a request cannot be run."""
    details = error.details
    return Refused(
        id=number,
        code=error.code,
        message=error.message,
        prompt_tokens=details.get("prompt_tokens"),
        context=details.get("context"),
        param=details.get("param"),
    )
