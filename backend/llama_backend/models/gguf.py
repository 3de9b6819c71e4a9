"""Reads the header of a GGUF file: the metadata without long arrays, and the sizes of tensors.

The file may come from anyone, so reading it is bounded: to a few MB of memory and a few seconds.
Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from llama_backend.errors import ModelUnreadable

MAGIC = b"GGUF"
Scalar = int | float | bool | str
Value = Scalar | tuple[int, ...]
"""A value of the metadata; a tuple holds a whole number for each layer."""

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_INTEGERS = frozenset({0, 1, 2, 3, 4, 5, 10, 11})
_MAX_HEADER = 64 << 20
"""Most bytes of a header; that of a model with 262,144 tokens and their merges has a quarter of that."""
_MAX_TEXT = 4 << 20
"""Most bytes of all texts together, without those in arrays. Chat templates have up to 64 KiB."""
_MAX_KEYS = 10_000
_MAX_STRINGS = 1 << 21
"""Texts and arrays inside of arrays; each of them takes a step to skip."""
_MAX_TENSORS = 1 << 16
_MAX_LAYERS = 1024
"""Longer arrays are not kept: they are about tokens and not about layers. The largest models have 126 layers."""
_MAX_NUMBERS = 1 << 16
"""Most numbers that are kept of all arrays together."""
_MAX_PARTS = 1000
_ALIGNMENT = "general.alignment"

Read = TypeVar("Read")


def check_magic(path: Path) -> None:
    """Raises ModelUnreadable where `path` cannot be read or is not a GGUF file."""
    with _opened(path) as file:
        start = file.read(8)
    if len(start) < 8:
        raise ModelUnreadable(f"{path}: is too short for a GGUF file ({len(start)} bytes)")
    if start[:4] != MAGIC:
        raise ModelUnreadable(f"{path}: is not a GGUF file (it starts with {start[:4]!r})")


def read_metadata(path: Path) -> dict[str, Value]:
    """The metadata of a GGUF file without long arrays. Raises ModelUnreadable for any other file."""
    return _read(path, lambda header: header.metadata())


def tensor_bytes(path: Path) -> dict[str, int]:
    """The bytes that each tensor takes in the file, up to the next one. Raises ModelUnreadable.

    `path` may be the first of several files (`-00001-of-00003.gguf`), as for llama.cpp; then all of them are read.
    """
    sizes: dict[str, int] = {}
    count = read_metadata(path).get("split.count", 1)
    if not isinstance(count, int) or count > _MAX_PARTS:
        raise ModelUnreadable(f"{path}: says that it is one of {repr(count)[:20]} files")
    for part in _parts(path, count):
        sizes |= _read(part, lambda header: header.tensors())
    return sizes


def _parts(path: Path, count: int) -> list[Path]:
    end = f"-00001-of-{count:05}.gguf"
    if count < 2 or not path.name.endswith(end):
        return [path]
    start = path.name.removesuffix(end)
    return [path.with_name(f"{start}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The open file. Raises ModelUnreadable with the system's reason, and for a pipe, where reading might wait."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ModelUnreadable(f"{path}: cannot be read: it is not a regular file")
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            yield file
    except OSError as error:
        raise ModelUnreadable(f"{path}: cannot be read: {error.strerror or error}") from error


class _TooMuch(ValueError):
    """The header holds more than any model's does."""


def _read(path: Path, what: Callable[[_Header], Read]) -> Read:
    check_magic(path)
    try:
        with _opened(path) as file:
            size = os.fstat(file.fileno()).st_size
            with mmap.mmap(file.fileno(), min(size, _MAX_HEADER), access=mmap.ACCESS_READ) as data:
                return what(_Header(data, size))
    except _TooMuch as error:
        raise ModelUnreadable(f"{path}: the GGUF header is damaged or cut off: it says {error}") from None
    except (struct.error, KeyError, OverflowError, ValueError, RecursionError) as error:
        raise ModelUnreadable(f"{path}: the GGUF header is damaged or cut off") from error


class _Header:
    """Walks over the key-value part and the tensor table of a mapped file."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self._data = data
        self._size = size
        self._at = 4
        self._tensors = 0
        self._text = self._strings = self._numbers = 0

    def metadata(self) -> dict[str, Value]:
        """The values by their keys, without long arrays."""
        version, self._tensors, keys = self._unpack("<I"), self._unpack("<Q"), self._unpack("<Q")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        if keys > _MAX_KEYS:
            raise _TooMuch(f"{keys} keys")
        pairs = ((self._string(), self._value(self._unpack("<I"))) for _ in range(keys))
        known = {key: value for key, value in pairs if value is not None}
        if self._at > len(self._data):
            raise ValueError("the last value is cut off")
        return known

    def tensors(self) -> dict[str, int]:
        """Bytes by name: from each tensor's start to the next one's, or to the file's end."""
        alignment = self.metadata().get(_ALIGNMENT, 32)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"tensors aligned to {alignment}")
        if self._tensors > _MAX_TENSORS:
            raise _TooMuch(f"{self._tensors} tensors")
        self._text = 0
        starts = dict(self._tensor() for _ in range(self._tensors))
        begin = -(-self._at // alignment) * alignment
        ordered = sorted(starts, key=lambda name: starts[name])
        ends = [*(starts[name] for name in ordered[1:]), self._size - begin]
        if ordered and ends[-1] < starts[ordered[-1]]:
            raise ValueError("the last tensor is cut off")
        return {name: end - starts[name] for name, end in zip(ordered, ends, strict=True)}

    def _tensor(self) -> tuple[str, int]:
        """Its name, and where it starts in the data."""
        name, dimensions = self._string(), self._unpack("<I")
        self._at += 8 * dimensions + 4
        return name, self._unpack("<Q")

    def _value(self, kind: int) -> Value | None:
        """The next value; None for an array that is not kept."""
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array()
        value: Scalar = self._unpack(_SCALARS[kind])
        return value

    def _array(self) -> tuple[int, ...] | None:
        """The whole numbers of a short array; any other is skipped."""
        kind, count = self._unpack("<I"), self._unpack("<Q")
        if kind in _INTEGERS and count <= _MAX_LAYERS and self._numbers + count <= _MAX_NUMBERS:
            self._numbers += count
            return tuple(self._unpack(_SCALARS[kind]) for _ in range(count))
        self._skip_items(kind, count)
        return None

    def _skip_array(self) -> None:
        self._skip_items(self._unpack("<I"), self._unpack("<Q"))

    def _skip_items(self, kind: int, count: int) -> None:
        if kind in (_STRING, _ARRAY):
            self._strings += count
            if self._strings > _MAX_STRINGS:
                raise _TooMuch(f"{self._strings} texts")
            skip = self._skip_string if kind == _STRING else self._skip_array
            for _ in range(count):
                skip()
        else:
            self._at += count * struct.calcsize(_SCALARS[kind])

    def _skip_string(self) -> None:
        self._at += 8 + self._length()

    def _length(self) -> int:
        length: int = struct.unpack_from("<Q", self._data, self._at)[0]
        if length > self._size:
            raise ValueError("a string longer than the file")
        return length

    def _string(self) -> str:
        length, start = self._length(), self._at + 8
        self._text += length
        if self._text > _MAX_TEXT:
            raise _TooMuch(f"{self._text} bytes of text")
        self._at = start + length
        return self._data[start : self._at].decode()

    def _unpack(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value  # type: ignore[no-any-return]
