"""What strangers wrote is read within limits: regular files only, so many bytes, so many values, so much of it shown.

With these limits reading any source takes at most `MOST_MEMORY`, and its length bounds the time.
"""

from __future__ import annotations

import os
import reprlib
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import msgspec

from llama_convert.errors import CorruptSource

MOST_MEMORY: Final = 1 << 30
"""Bytes of memory that `convert` and `pull` take in their own process, whatever the source holds.

An honest source takes 300 MB or less; the worker, where llama.cpp computes, takes what the model does.
"""
MOST_TOKENIZER: Final = 64 << 20
"""Bytes of a `tokenizer.json`; those of the largest vocabularies have half of that."""
MOST_CONFIG: Final = 8 << 20
"""Bytes of any other JSON file, and of a chat template or a licence."""
_MOST_VALUES: Final = {MOST_TOKENIZER: 4 << 20, MOST_CONFIG: 1 << 20}
_LONGEST_NAME: Final = 200
"""Bytes; a file system takes 255 with the ending."""
_MARKS: Final = b",:[{"

_KINDS: Final = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_excerpts = reprlib.Repr()
_excerpts.maxstring = _excerpts.maxlong = _excerpts.maxother = 80


def excerpt(value: object) -> str:
    """A value of a stranger as Python writes it, without its middle where it is long."""
    return _excerpts.repr(value)


def is_plain_name(name: str) -> bool:
    """Whether a file may have this name, which somebody else chose: it stays in its folder, is not hidden, is no option
    to any command, prints as it is, and leaves room for an ending.
    """
    whole = 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME and name.isprintable()
    return whole and name[0] not in "-. " and name[-1] not in ". " and not set(name) & set("/\\")


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading, after following links. What is no regular file could hold us up for ever.

    Raises:
        CorruptSource: it is a pipe, a device, a socket or a folder.
        OSError: it cannot be opened.
    """
    _check_regular(path, path.stat())
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")
    try:
        _check_regular(path, os.fstat(file.fileno()))
    except CorruptSource:
        file.close()
        raise
    return file


def _check_regular(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        raise CorruptSource(f"{path}: is {kind}, not a regular file")


def read_regular(path: Path, most: int) -> bytes:
    """All bytes of a regular file.

    Raises:
        CorruptSource: it has more than `most`, or is no regular file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise CorruptSource(f"{path}: has {size} bytes, and no more than {most} are read of such a file")
        return file.read(size)


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises:
        CorruptSource: it is too long, no UTF-8, or no regular file.
        OSError: it cannot be read.
    """
    try:
        return read_regular(path, MOST_CONFIG).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptSource(f"{path}: is no UTF-8 text ({error})") from error


def parse_object(raw: bytes, origin: object, most: int = MOST_TOKENIZER) -> dict[str, Any]:
    """The JSON object that the bytes of `origin`, a file or a server, describe.

    Python's objects take many times the bytes that describe them, so the marks between values are counted first.

    Raises:
        CorruptSource: it is no JSON object, or one of too many values.
    """
    values = sum(raw.count(mark) for mark in _MARKS)
    if values > _MOST_VALUES[most]:
        raise CorruptSource(f"{origin}: holds {values} values, and no more than {_MOST_VALUES[most]} are read")
    try:
        found = msgspec.json.decode(raw)
    except RecursionError:
        raise CorruptSource(f"{origin}: no valid JSON (nested too deeply)") from None
    except ValueError as error:
        raise CorruptSource(f"{origin}: no valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise CorruptSource(f"{origin}: no JSON object")
    return found
