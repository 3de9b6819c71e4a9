"""Reads the header of a GGUF file: the metadata without arrays, and the sizes of tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llama_backend.errors import ModelUnreadable

MAGIC = b"GGUF"
Scalar = int | float | bool | str

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_KEYS = 100_000
_MAX_TENSORS = 1_000_000
_ALIGNMENT = "general.alignment"

Read = TypeVar("Read")


def check_magic(path: Path) -> None:
    """Raises ModelUnreadable where `path` cannot be read or is no GGUF file."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ModelUnreadable(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(start) < 8:
        raise ModelUnreadable(f"{path}: is too short for a GGUF file ({len(start)} bytes)")
    if start[:4] != MAGIC:
        raise ModelUnreadable(f"{path}: is no GGUF file (it starts with {start[:4]!r})")


def read_metadata(path: Path) -> dict[str, Scalar]:
    """The scalar metadata of a GGUF file; raises ModelUnreadable for anything that is not one."""
    return _read(path, lambda header: header.scalars())


def tensor_bytes(path: Path) -> dict[str, int]:
    """The bytes that each tensor takes in the file, up to the next one; raises ModelUnreadable.

    `path` may be the first of several files (`-00001-of-00003.gguf`), as llama.cpp takes it.
    """
    sizes: dict[str, int] = {}
    for part in _parts(path, int(read_metadata(path).get("split.count", 1))):
        sizes |= _read(part, lambda header: header.tensors())
    return sizes


def _parts(path: Path, count: int) -> list[Path]:
    end = f"-00001-of-{count:05}.gguf"
    if count < 2 or not path.name.endswith(end):
        return [path]
    start = path.name.removesuffix(end)
    return [path.with_name(f"{start}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def _read(path: Path, what: Callable[[_Header], Read]) -> Read:
    check_magic(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return what(_Header(data))
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, OSError, ValueError, RecursionError) as error:
        raise ModelUnreadable(f"{path}: the GGUF header is damaged or cut off") from error


class _Header:
    """Walks over the key-value part and the tensor table of a mapped file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4
        self._tensors = 0

    def scalars(self) -> dict[str, Scalar]:
        version, self._tensors, keys = self._unpack("<I"), self._unpack("<Q"), self._unpack("<Q")
        if version not in (2, 3) or keys > _MAX_KEYS:
            raise ValueError(f"version {version}, {keys} keys")
        pairs = ((self._string(), self._value(self._unpack("<I"))) for _ in range(keys))
        scalars = {key: value for key, value in pairs if value is not None}
        if self._at > len(self._data):
            raise ValueError("the last value is cut off")
        return scalars

    def tensors(self) -> dict[str, int]:
        """Bytes by name: from each tensor's start to the next one's, or to the file's end."""
        alignment = int(self.scalars().get(_ALIGNMENT, 32))
        if self._tensors > _MAX_TENSORS or alignment < 1:
            raise ValueError(f"{self._tensors} tensors, aligned to {alignment}")
        starts = dict(self._tensor() for _ in range(self._tensors))
        begin = -(-self._at // alignment) * alignment
        ordered = sorted(starts, key=lambda name: starts[name])
        ends = [*(starts[name] for name in ordered[1:]), len(self._data) - begin]
        if ordered and ends[-1] < starts[ordered[-1]]:
            raise ValueError("the last tensor is cut off")
        return {name: end - starts[name] for name, end in zip(ordered, ends, strict=True)}

    def _tensor(self) -> tuple[str, int]:
        """Name, and where it starts in the data."""
        name, dimensions = self._string(), self._unpack("<I")
        self._at += 8 * dimensions + 4
        return name, self._unpack("<Q")

    def _value(self, kind: int) -> Scalar | None:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            self._skip_array()
            return None
        value: Scalar = self._unpack(_SCALARS[kind])
        return value

    def _skip_array(self) -> None:
        kind, count = self._unpack("<I"), self._unpack("<Q")
        if kind == _STRING:
            for _ in range(count):
                self._at += 8 + self._peek_length()
        elif kind == _ARRAY:
            for _ in range(count):
                self._skip_array()
        else:
            self._at += count * struct.calcsize(_SCALARS[kind])

    def _peek_length(self) -> int:
        length: int = struct.unpack_from("<Q", self._data, self._at)[0]
        if length > len(self._data):
            raise ValueError("a string longer than the file")
        return length

    def _string(self) -> str:
        length = self._peek_length()
        start = self._at + 8
        self._at = start + length
        return self._data[start : self._at].decode()

    def _unpack(self, form: str) -> int:
        (value,) = struct.unpack_from(form, self._data, self._at)
        self._at += struct.calcsize(form)
        return value  # type: ignore[no-any-return]
