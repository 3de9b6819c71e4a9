"""Metadata values of a GGUF file, with the type that each is stored as."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llama_convert.gguf.tensor_types import ValueType
from llama_convert.untrusted import excerpt

SCALARS: dict[ValueType, str] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}
"""The `struct` code of each value type of a fixed size."""


@dataclass(frozen=True, slots=True)
class Value:
    """A metadata value; `item` is the type of the elements where `kind` is ARRAY."""

    kind: ValueType
    value: Any
    item: ValueType | None = None

    def encode(self) -> bytes:
        """The value as it is stored in the file, its type tag first."""
        head = struct.pack("<I", self.kind)
        if self.kind is not ValueType.ARRAY:
            return head + _encode_items(self.kind, [self.value])
        assert self.item is not None
        return head + struct.pack("<IQ", self.item, len(self.value)) + _encode_items(self.item, self.value)


Metadata = dict[str, Value]


def encode_string(text: str) -> bytes:
    """A string as GGUF stores it: its length in bytes as u64, then UTF-8."""
    raw = text.encode("utf-8", errors="surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


def _encode_items(kind: ValueType, items: Sequence[Any]) -> bytes:
    if kind is ValueType.STRING:
        return b"".join(map(encode_string, items))
    return struct.pack(f"<{len(items)}{SCALARS[kind]}", *items)


def u32(value: int) -> Value:
    return _number(ValueType.UINT32, value, int)


def i32(value: int) -> Value:
    return _number(ValueType.INT32, value, int)


def f32(value: float) -> Value:
    return _number(ValueType.FLOAT32, value, float)


def _number(kind: ValueType, value: float, convert: type[int] | type[float]) -> Value:
    """The value as a number of this type.

    Raises ValueError where it does not fit.
    """
    try:
        found = convert(value)
        struct.pack(f"<{SCALARS[kind]}", found)
    except (OverflowError, struct.error) as error:
        raise ValueError(f"{excerpt(value)} does not fit {kind.name}") from error
    return Value(kind, found)


def boolean(value: bool) -> Value:
    return Value(ValueType.BOOL, bool(value))


def string(value: str) -> Value:
    return Value(ValueType.STRING, value)


def strings(values: Iterable[str]) -> Value:
    return Value(ValueType.ARRAY, list(values), ValueType.STRING)


def i32s(values: Iterable[int]) -> Value:
    return Value(ValueType.ARRAY, [int(value) for value in values], ValueType.INT32)


def f32s(values: Iterable[float]) -> Value:
    return Value(ValueType.ARRAY, [float(value) for value in values], ValueType.FLOAT32)
