"""A real terminal: bytes in, bytes out, signals, and the state that the terminal is left in."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import termios
import time
from contextlib import suppress


class Terminal:
    """A pseudo-terminal of 80 × 24 with a program in it."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.output = b""
        """What was written after the text that was last waited for."""
        self.written = b""
        """Everything that was written."""
        self.status: int | None = None
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            path = os.pathsep.join(filter(None, sys.path))
            variables = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": path} | environment
            os.execvpe(command[0], command, variables)
        fcntl.ioctl(self._file, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.modes = termios.tcgetattr(self._file)

    def write(self, data: bytes) -> None:
        os.write(self._file, data)

    def read_until(self, text: bytes, seconds: float = 60.0) -> None:
        """Reads until `text` is written, after what earlier calls waited for."""
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < deadline, f"{text!r} did not come, but {self.output[-2000:]!r}"
            if select.select([self._file], [], [], 0.1)[0]:
                try:
                    self._read()
                except OSError:
                    time.sleep(0.05)
        self.output = self.output.split(text, 1)[1]

    def read_for(self, seconds: float) -> None:
        """Reads everything that is written within so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self._file], [], [], 0.1)[0]:
                self._read()

    def _read(self) -> None:
        data = os.read(self._file, 65536)
        self.output += data
        self.written += data

    def end(self, seconds: float = 60.0) -> int:
        """The exit status."""
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline:
            if select.select([self._file], [], [], 0.02)[0]:
                with suppress(OSError):
                    self._read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        assert self.status is not None, "the program did not end"
        return self.status

    def wait_stopped(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                return
            time.sleep(0.02)
        raise AssertionError("the program did not stop")

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._file)

    @property
    def is_as_before(self) -> bool:
        """Whether the terminal echoes and edits lines again."""
        return bool(termios.tcgetattr(self._file)[3] == self.modes[3])
