"""Notes of the engine for the server, who was being computed, in memory that outlives the engine.

llama.cpp ends the process where it does not know what to do, so that process cannot tell whose fault it was.
"""

from __future__ import annotations

import os
import signal
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from mmap import PAGESIZE, mmap
from types import TracebackType
from typing import IO

_NUMBER = "Q"
_SIZE = array(_NUMBER).itemsize
_MOST = PAGESIZE // _SIZE - 2
_GRAMMAR_SECONDS = 3.0
"""Processor time that a grammar may take for one token."""


def nameless_file() -> IO[bytes]:
    """A file for as long as somebody has it open; in memory, where the system can do that."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("llama-chat"), "r+b")
    from tempfile import TemporaryFile

    return TemporaryFile()


class Guard:
    """The engine's side. Without a file the notes are for nobody.

    The page's first number is of the request whose grammar is at work, or 0; then come how many requests are in the
    batch, and their numbers.
    """

    def __init__(self, file: int | None = None) -> None:
        self._page = mmap(-1 if file is None else file, PAGESIZE)

    def batch(self, numbers: list[int]) -> None:
        """Notes which requests are computed together from now on."""
        numbers = numbers[:_MOST]
        self._write([0, len(numbers), *numbers])

    @contextmanager
    def grammar(self, number: int) -> Iterator[None]:
        """Blames a request for what happens in this block; one that takes too long ends the process."""
        self._write([number])
        signal.setitimer(signal.ITIMER_VIRTUAL, _GRAMMAR_SECONDS)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            self._write([0])

    def _write(self, numbers: list[int]) -> None:
        data = array(_NUMBER, numbers).tobytes()
        self._page[: len(data)] = data


@dataclass(frozen=True)
class Suspects:
    """Who was being computed when an engine died."""

    grammar: int = 0
    """The request whose grammar was at work, or 0."""
    batch: frozenset[int] = frozenset()


class GuardPage:
    """The server's side. As a context it is the number of the file that is handed to the engine."""

    def __init__(self) -> None:
        self._file = nameless_file()
        self._file.truncate(PAGESIZE)
        self._page = mmap(self._file.fileno(), PAGESIZE)

    def __enter__(self) -> int:
        return self._file.fileno()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def suspects(self) -> Suspects:
        """Who was being computed last."""
        numbers = array(_NUMBER, self._page[:])
        return Suspects(numbers[0], frozenset(numbers[2 : 2 + min(numbers[1], _MOST)]))
