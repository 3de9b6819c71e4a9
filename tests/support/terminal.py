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


class Terminal:
    """A pseudo-terminal of 80 × 24 with a program in it."""

    def __init__(self, *command: str, stdout: int | None = None, **environment: str) -> None:
        """`stdout` is the descriptor of a file that the program writes to instead of the terminal."""
        self.output = b""
        """What was written after the text that was last waited for."""
        self.written = b""
        """Everything that was written."""
        self.status: int | None = None
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            path = os.pathsep.join(filter(None, sys.path))
            variables = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": path} | environment
            if stdout is not None:
                os.dup2(stdout, 1)
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
            self._read(0.1)
        self.output = self.output.split(text, 1)[1]

    def read_for(self, seconds: float) -> None:
        """Reads everything that is written within so many seconds."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._read(0.1)

    def _read(self, seconds: float) -> bool:
        """Reads what is written within so many seconds; returns whether there was something."""
        if not select.select([self._file], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._file, 65536)
        except OSError:
            # No process has the terminal open any more.
            time.sleep(seconds)
            return False
        self.output += data
        self.written += data
        return True

    def end(self, seconds: float = 60.0) -> int:
        """Reads everything until the program ends, and returns its exit status."""
        deadline = time.monotonic() + seconds
        while self.status is None and time.monotonic() < deadline:
            self._read(0.02)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        assert self.status is not None, f"the program did not end: {self.written[-2000:]!r}"
        while self._read(0.0):
            pass
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
