"""Small GGUF files for tests: metadata, and tensors without sense.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

_FORMS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


@dataclass(frozen=True)
class Typed:
    """A scalar of a given GGUF type."""

    kind: int
    value: Any


@dataclass(frozen=True)
class Array:
    """An array of a given GGUF element type."""

    kind: int
    values: list[Any]


def gguf(metadata: dict[str, Any], version: int = 3, tensors: int = 0, keys: int | None = None) -> bytes:
    """A file of that metadata; ints are uint32, floats float32, lists arrays of strings."""
    count = len(metadata) if keys is None else keys
    pairs = b"".join(text(key) + value(item) for key, item in metadata.items())
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, count) + pairs


def gguf_with_tensors(metadata: dict[str, Any], tensors: dict[str, int], alignment: int = 32) -> bytes:
    """A file with one-dimensional tensors of so many bytes, all zero; sizes are multiples of the alignment."""
    table, at = b"", 0
    for name, size in tensors.items():
        table += text(name) + struct.pack("<IQIQ", 1, size // 4, 0, at)
        at += size
    header = gguf(metadata, tensors=len(tensors)) + table
    return header + bytes(-len(header) % alignment) + bytes(at)


def text(string: str) -> bytes:
    data = string.encode()
    return struct.pack("<Q", len(data)) + data


def value(item: Any) -> bytes:
    """The type and the value."""
    kind = _kind(item)
    return struct.pack("<I", kind) + _payload(kind, item)


def _kind(item: Any) -> int:
    if isinstance(item, Typed):
        return item.kind
    kinds: dict[type, int] = {bool: 7, int: 4, float: 6, str: _STRING, list: _ARRAY, Array: _ARRAY}
    return kinds[type(item)]


def _payload(kind: int, item: Any) -> bytes:
    if isinstance(item, Typed):
        return _payload(kind, item.value)
    if kind == _STRING:
        return text(item)
    if kind == _ARRAY:
        array = item if isinstance(item, Array) else Array(_STRING, item)
        parts = [_payload(array.kind, element) for element in array.values]
        return struct.pack("<IQ", array.kind, len(parts)) + b"".join(parts)
    return struct.pack(f"<{_FORMS[kind]}", item)


def with_string(data: bytes, key: str, new: str, spare: str = "general.name") -> bytes:
    """The same file with another string under a key; another string gets longer or shorter, so that all stays put."""
    change = len(_string_at(data, key)) - len(new.encode())
    old = _string_at(data, spare)
    return _replaced(_replaced(data, key, new.encode()), spare, old.ljust(len(old) + change)[: len(old) + change])


def _string_at(data: bytes, key: str) -> bytes:
    at = data.index(text(key)) + len(text(key)) + 4
    return data[at + 8 : at + 8 + struct.unpack_from("<Q", data, at)[0]]


def _replaced(data: bytes, key: str, new: bytes) -> bytes:
    at = data.index(text(key)) + len(text(key)) + 4
    end = at + 8 + len(_string_at(data, key))
    return data[:at] + struct.pack("<Q", len(new)) + new + data[end:]
