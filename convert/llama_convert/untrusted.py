"""Limits for reading untrusted input: regular files only, a bounded size, a bounded number of values.

Within these limits reading any source takes at most `MOST_MEMORY`, and the time is bounded by its length.
"""

from __future__ import annotations

import os
import reprlib
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any

import msgspec

from llama_convert.errors import CorruptSource

MOST_MEMORY = 1 << 30
"""Bytes of memory that `convert` and `pull` take in their own process, whatever the source holds.

A source that is not hostile takes 300 MB or less. The worker, in which llama.cpp computes, takes as much as the
model needs.
"""
MOST_TOKENIZER = 64 << 20
"""Bytes of a `tokenizer.json`; the largest vocabularies need half of that."""
MOST_CONFIG = 8 << 20
"""Bytes of any other JSON file, and of a chat template or a licence."""
MOST_TOKENS = 1 << 20
"""Tokens of a vocabulary: four times the largest one in use. Padding up to an id takes memory."""
_MOST_VALUES = {MOST_TOKENIZER: 4 << 20, MOST_CONFIG: 1 << 20}
_LONGEST_NAME = 200
"""Bytes; a file system takes 255 with the ending."""
_MARKS = b",:[{"

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

_excerpts = reprlib.Repr()
_excerpts.maxstring = _excerpts.maxlong = _excerpts.maxother = 80


def excerpt(value: object) -> str:
    """An untrusted value as Python writes it; where it is long, the middle is left out."""
    return _excerpts.repr(value)


def is_plain_name(name: str) -> bool:
    """Whether an untrusted name may become the name of a file.

    Such a name stays in its folder, is not hidden, is not taken for an option of a command, is printable, and leaves
    room for an ending.
    """
    whole = 0 < len(name.encode("utf-8", "replace")) <= _LONGEST_NAME and name.isprintable()
    return whole and name[0] not in "-. " and name[-1] not in ". " and not set(name) & set("/\\")


def open_regular(path: Path) -> BufferedReader:
    """Opens a regular file for reading, following links. Reading a pipe or a device could block for ever.

    Raises CorruptSource where it is a pipe, a device, a socket or a folder, and OSError where it cannot be opened.
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

    Raises CorruptSource where it has more than `most` bytes or is not a regular file, and OSError where it cannot be
    read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise CorruptSource(f"{path}: has {size} bytes, but such a file may have at most {most}")
        return file.read(size)


def read_text(path: Path) -> str:
    """The text of a small file.

    Raises CorruptSource where it is too long, not UTF-8, or not a regular file, and OSError where it cannot be read.
    """
    try:
        return read_regular(path, MOST_CONFIG).decode("utf-8")
    except UnicodeDecodeError as error:
        raise CorruptSource(f"{path}: is not UTF-8 text ({error})") from error


def parse_object(raw: bytes, origin: object, most: int = MOST_TOKENIZER) -> dict[str, Any]:
    """The JSON object in the bytes of `origin`, a file or a server.

    Python objects take many times the bytes of their JSON, so the marks between values are counted first.

    Raises CorruptSource where it is not a JSON object, or has too many values.
    """
    values = sum(raw.count(mark) for mark in _MARKS)
    if values > _MOST_VALUES[most]:
        raise CorruptSource(f"{origin}: holds {values} values, but such a file may hold at most {_MOST_VALUES[most]}")
    try:
        found = msgspec.json.decode(raw)
    except RecursionError:
        raise CorruptSource(f"{origin}: is not valid JSON (nested too deeply)") from None
    except ValueError as error:
        raise CorruptSource(f"{origin}: is not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise CorruptSource(f"{origin}: is not a JSON object")
    return found
