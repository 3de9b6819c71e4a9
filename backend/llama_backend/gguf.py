"""Reads the header of a GGUF file: the metadata, without arrays and tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from llama_backend.errors import ModelUnreadable

MAGIC = b"GGUF"
Scalar = int | float | bool | str

_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_KEYS = 100_000


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
    check_magic(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Header(data).scalars()
    except (struct.error, UnicodeDecodeError, KeyError, OverflowError, OSError, ValueError, RecursionError) as error:
        raise ModelUnreadable(f"{path}: the GGUF header is damaged or cut off") from error


class _Header:
    """Walks over the key-value part of a mapped file."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 4

    def scalars(self) -> dict[str, Scalar]:
        version, _tensors, keys = self._unpack("<I"), self._unpack("<Q"), self._unpack("<Q")
        if version not in (2, 3) or keys > _MAX_KEYS:
            raise ValueError(f"version {version}, {keys} keys")
        pairs = ((self._string(), self._value(self._unpack("<I"))) for _ in range(keys))
        scalars = {key: value for key, value in pairs if value is not None}
        if self._at > len(self._data):
            raise ValueError("the last value is cut off")
        return scalars

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
