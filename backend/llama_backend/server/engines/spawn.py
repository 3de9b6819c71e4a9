"""Starts the engine's process. This needs few imports, so that the engine loads while the server imports the rest."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import msgspec

from llama_backend.crash_notes import CrashPage, Suspects
from llama_backend.host.privacy import without_secrets
from llama_backend.wire.ipc import EngineConfig


class EngineProcess:
    """A started engine: its socket, its standard error, and the page where it notes which requests it works on.

    Raises OSError where no process can be started.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._crash_page = CrashPage()
        self.sock, theirs = socket.socketpair()
        with theirs, self._crash_page as notes:
            arguments = [msgspec.json.encode(config).decode(), str(theirs.fileno()), str(notes)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", config.module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno(), notes],
                env=without_secrets(os.environ),
            )
        assert self._process.stderr is not None
        self.stderr = self._process.stderr
        self.pid = self._process.pid

    @property
    def exit_status(self) -> str:
        """How the process ended, as text for messages."""
        code = self._process.poll()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def suspects(self) -> Suspects:
        """The requests that the engine was working on when the process ended."""
        return self._crash_page.suspects()

    def wait(self, seconds: float | None = None) -> None:
        """Waits for the end; a process that takes longer than `seconds` is killed."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def abort(self) -> None:
        """Kills the process, without waiting for its end."""
        self._process.kill()

    def kill(self) -> None:
        """Kills the process, and returns when it has ended."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Closes the socket and the pipe; only to be called before an event loop has taken them over."""
        self.sock.close()
        self.stderr.close()
