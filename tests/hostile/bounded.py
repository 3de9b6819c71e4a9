"""Reads hostile files in a process of its own: what takes all memory or all time is a finding then, and no accident."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.hostile.trial import Check

Read = Callable[[bytes, Path], Any]
"""Writes a case into a folder and reads it; a function of a module, since another process calls it."""

MEMORY = 2 << 30
"""Bytes that the process may have. More than any reader may take, and less than what hurts the machine."""
_LONGEST_TEXT = 1001
_MUCH = 8 << 20
"""Bytes that are given back to the system after a case, so that the next one is not measured against them."""


@dataclass(frozen=True)
class Outcome:
    """What came of one case: the error with its text, bytes of memory beyond those before, seconds of processor."""

    error: str
    text: str
    foreseen: bool
    peak: int
    seconds: float

    def check(self, memory: int, seconds: float) -> None:
        """Whatever stood in the file, the end is a result or an error of ours in one line, within the limits."""
        assert self.foreseen, f"{self.error}: {self.text[:500]}"
        assert len(self.text) <= _LONGEST_TEXT, f"{len(self.text)} characters of text"
        assert self.text.isprintable()
        assert self.peak <= memory * 1.1, f"{self.peak >> 20} MiB, and {memory >> 20} are allowed"
        assert self.seconds <= seconds, f"{self.seconds:.1f} s of processor time"


class Reader:
    """A process that reads one case after another; `allowed` are the errors that may come out."""

    def __init__(self, read: Read, allowed: type[Exception], folder: Path, patience: float = 60.0) -> None:
        self._arguments = (read, allowed, folder)
        self._patience = patience
        self._start()

    def read(self, case: bytes) -> Outcome:
        """What comes of `case`; a process that dies or gives no answer is another kind of error."""
        self._pipe.send_bytes(case)
        if not self._pipe.poll(self._patience):
            self.close()
            self._start()
            return Outcome("TimeoutError", f"no answer in {self._patience:.0f} s", False, 0, self._patience)
        try:
            outcome = self._pipe.recv()
        except EOFError:
            self.close()
            self._start()
            return Outcome("ChildProcessError", f"ended with {self._process.exitcode}", False, 0, 0.0)
        assert isinstance(outcome, Outcome)
        return outcome

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _start(self) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self._process = spawning.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()


@contextmanager
def reader(read: Read, allowed: type[Exception], folder: Path) -> Iterator[Reader]:
    """A reader for as long as the block lasts."""
    process = Reader(read, allowed, folder)
    try:
        yield process
    finally:
        process.close()


def opened(
    read: Read, allowed: type[Exception], memory: int, seconds: float
) -> Callable[[Path], AbstractContextManager[Check]]:
    """What a trial opens: a reader, whose outcomes are held to these limits."""

    @contextmanager
    def opened_in(folder: Path) -> Iterator[Check]:
        with reader(read, allowed, folder) as process:
            yield lambda case: process.read(case).check(memory, seconds)

    return opened_in


def _serve(pipe: Connection, read: Read, allowed: type[Exception], folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    while True:
        outcome = _tried(read, allowed, pipe.recv_bytes(), folder)
        pipe.send(outcome)
        if outcome.peak > _MUCH:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)


def _tried(read: Read, allowed: type[Exception], case: bytes, folder: Path) -> Outcome:
    before, start = _peak(reset=True), time.process_time()
    error: BaseException | None = None
    try:
        read(case, folder)
    except Exception as found:  # noqa: BLE001 - the caller judges whatever comes out
        error = found.with_traceback(None)
    seconds = time.process_time() - start
    foreseen = error is None or isinstance(error, allowed)
    name, text = (type(error).__name__, str(error)) if error else ("", "")
    return Outcome(name, text, foreseen, _peak() - before, seconds)


def _peak(*, reset: bool = False) -> int:
    """Bytes of memory that the process has had at most, since the last reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
