"""The engine's notes on which requests it works on, in memory that outlives it, for the server to read after a crash.

llama.cpp ends the process on errors that it cannot handle. The process can then no longer say which request it worked
on, so the notes must be written before.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import PAGESIZE, mmap
from threading import get_ident
from types import TracebackType
from typing import IO

_NUMBER = "Q"
_SIZE = array(_NUMBER).itemsize
LANES = 2
"""Threads of the engine that cut the texts of requests into tokens. Each has a place for its notes."""
_BATCH = 1 + 2 * LANES
"""Where the numbers of the batch begin, behind those of the grammar and of the lanes."""
_MOST = PAGESIZE // _SIZE - _BATCH - 1
"""Requests of a batch that fit on the page."""
_TRACE = 64 * 1024
"""Bytes for the stacks that Python writes when a signal ends the process."""
_CULPRIT = re.compile(rb"^Current thread 0x([0-9a-f]+)", re.MULTILINE)
GRAMMAR_SECONDS = 3.0
"""Processor time that a grammar may take for one token; then a signal ends the process."""


def nameless_file() -> IO[bytes]:
    """A file without a name, which exists as long as it is open; in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("llama-chat"), "r+b")
    from tempfile import TemporaryFile

    return TemporaryFile()


class CrashNotes:
    """The engine's side, which writes. Without a file the notes go nowhere.

    The first number on the page is that of the request whose grammar is at work, or 0. Then come, for each lane, the
    id of its thread and the number of the request that it works on, or 0. Last come how many requests are in the batch,
    and their numbers. Behind the page Python writes the stack of the thread in which a signal ended the process.
    """

    def __init__(self, file: int | None = None) -> None:
        self._file = file
        self._page = mmap(-1 if file is None else file, PAGESIZE)

    def watch(self) -> None:
        """From now on Python writes the stacks of all threads when a signal ends the process."""
        if self._file is not None:
            os.lseek(self._file, PAGESIZE, os.SEEK_SET)
            faulthandler.enable(self._file, all_threads=True)

    def batch(self, numbers: list[int]) -> None:
        """Notes which requests are computed together from now on."""
        numbers = numbers[:_MOST]
        self._write(0, [0])
        self._write(_BATCH, [len(numbers), *numbers])

    @contextmanager
    def grammar(self, number: int) -> Iterator[None]:
        """Notes that a request's grammar is at work in this block. The process ends where that takes too long."""
        self._write(0, [number])
        signal.setitimer(signal.ITIMER_VIRTUAL, GRAMMAR_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self._write(0, [0])

    @contextmanager
    def reading(self, place: int, number: int) -> Iterator[None]:
        """Notes that this thread, the lane of that place, works on a request in this block."""
        at = 1 + 2 * place
        self._write(at, [get_ident(), number])
        try:
            yield
        finally:
            self._write(at, [0, 0])

    def _write(self, at: int, numbers: list[int]) -> None:
        data = array(_NUMBER, numbers).tobytes()
        self._page[at * _SIZE : at * _SIZE + len(data)] = data


@dataclass(frozen=True)
class Suspects:
    """The requests that an engine worked on when it died; only those of the thread that crashed, if that is known."""

    grammar: int = 0
    """The request whose grammar was at work, or 0."""
    batch: frozenset[int] = frozenset()
    reading: frozenset[int] = frozenset()
    """The requests whose text was being tokenised."""

    @property
    def all(self) -> frozenset[int]:
        """Only the request whose grammar was at work, if there was one, or else all of them."""
        return frozenset({self.grammar}) if self.grammar else self.batch | self.reading


class CrashPage:
    """The server's side, which reads. As a context manager it gives the descriptor that the engine inherits."""

    def __init__(self) -> None:
        self._file = nameless_file()
        self._file.truncate(PAGESIZE + _TRACE)
        self._page = mmap(self._file.fileno(), PAGESIZE + _TRACE)

    def __enter__(self) -> int:
        return self._file.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def suspects(self) -> Suspects:
        """The requests that the engine worked on last."""
        numbers = array(_NUMBER, self._page[:PAGESIZE])
        lanes = {numbers[at]: numbers[at + 1] for at in range(1, _BATCH, 2) if numbers[at]}
        first = _BATCH + 1
        batch = frozenset(numbers[first : first + min(numbers[_BATCH], _MOST)])
        found = _CULPRIT.search(self._page[PAGESIZE:])
        culprit = int(found[1], 16) if found else None
        if culprit in lanes:
            return Suspects(reading=frozenset({lanes[culprit]}))
        return Suspects(numbers[0], batch, frozenset() if culprit else frozenset(lanes.values()))
