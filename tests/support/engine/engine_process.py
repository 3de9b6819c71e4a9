"""An engine process as the server starts it, and the other end of its socket."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from llama_backend.wire.ipc import (
    HEADER,
    Command,
    EngineConfig,
    EngineStats,
    Event,
    SequenceOutput,
    StepDone,
    decode_event,
    frame,
)

SECONDS = 30.0
"""An engine that takes longer to answer has failed."""
E = TypeVar("E")


class EngineProcess:
    """An engine, and this side of its socket."""

    def __init__(self, config: EngineConfig) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(SECONDS)
        with theirs:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "llama_backend.engine",
                    msgspec.json.encode(config).decode(),
                    str(theirs.fileno()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
            )
        self._file = self.sock.makefile("rb")
        self.stats: EngineStats | None = None

    def send(self, *commands: Command) -> None:
        self.sock.sendall(b"".join(map(frame, commands)))

    def events(self) -> Iterator[Event]:
        """What comes, but for statistics, which come at any time; `stats` has the last ones."""
        while len(header := self._file.read(HEADER.size)) == HEADER.size:
            event = decode_event(self._file.read(HEADER.unpack(header)[0]))
            if isinstance(event, EngineStats):
                self.stats = event
            else:
                yield event

    def wait_for(self, kind: type[E], when: Callable[[E], bool] = lambda event: True) -> E:
        for event in self.events():
            if isinstance(event, kind) and when(event):
                return event
        raise AssertionError(f"the engine ended before {kind.__name__}: {self.finish()[2]}")

    def answer(self, number: int) -> tuple[str, SequenceOutput]:
        text = ""
        for event in self.events():
            for output in event.outputs if isinstance(event, StepDone) else []:
                text += output.text if output.id == number else ""
                if output.id == number and output.finish_reason:
                    return text, output
        raise AssertionError("the engine ended before the answer did")

    def hang_up(self) -> None:
        """Says nothing more, as a server that has gone away."""
        self.sock.shutdown(socket.SHUT_WR)

    def finish(self) -> tuple[int, bytes, str]:
        """Exit code, standard output and standard error, once it has ended."""
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err.decode()

    def close(self) -> None:
        self._file.close()
        self.sock.close()
        self.process.kill()
        self.process.communicate()
