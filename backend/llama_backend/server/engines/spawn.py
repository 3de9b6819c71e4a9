"""The engine's process, before anything follows it: it is on its way while the server's own modules are imported."""

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
    """A started engine: its socket, its standard error, and the page where it notes whom it computes.

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

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> str:
        """How the process ended, for a person."""
        code = self._process.poll()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def suspects(self) -> Suspects:
        """Who was being computed when the process ended."""
        return self._crash_page.suspects()

    def wait(self, patience: float | None = None) -> None:
        """Waits for the end; a process that takes longer than `patience` seconds is killed."""
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def abort(self) -> None:
        """Kills the process, without waiting for its end."""
        self._process.kill()

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Closes the socket and the pipe; for a process that nobody follows."""
        self.sock.close()
        self.stderr.close()
