"""Reads the safetensors format: u64 header length, JSON header, data. Every claim of the header is checked."""

from __future__ import annotations

import struct
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from llama_convert.checkpoint.tensor import UNUSED, DType, StoredTensor
from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.untrusted import MOST_TOKENIZER, excerpt, open_regular, parse_object

_MOST_HEADER = MOST_TOKENIZER
_MOST_TENSORS = 1 << 16
_MOST_AXES = 8
_MOST_NAME = 500


def read_safetensors(path: Path) -> dict[str, StoredTensor]:
    """The tensors of `path` by name.

    Raises CorruptSource where the header is invalid, or the file is shorter or longer than it says, and
    UnsupportedModel where an element type is not a float of 16 or 32 bits.
    """
    size = path.stat().st_size
    header, start = _read_header(path, size)
    header.pop("__metadata__", None)
    if len(header) > _MOST_TENSORS or max(map(len, header), default=0) > _MOST_NAME:
        raise CorruptSource(f"{path}: the header names {len(header)} tensors, or a tensor with a very long name")
    entries = {name: _entry(path, name, entry) for name, entry in header.items()}
    _check_ranges(path, {name: (begin, end) for name, (_, _, begin, end) in entries.items()}, size - start)
    return {
        name: StoredTensor(name, shape, _dtype(path, name, dtype), path, start + begin)
        for name, (dtype, shape, begin, _) in entries.items()
        if not name.endswith(UNUSED)
    }


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    with open_regular(path) as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else _MOST_HEADER + 1
        if length > min(_MOST_HEADER, size - 8):
            raise CorruptSource(f"{path}: the header is cut short, or this is not a safetensors file")
        raw = file.read(length)
    return parse_object(raw, path), 8 + length


def _entry(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """Type name, shape and byte range of one tensor."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            if len(shape) > _MOST_AXES or not all(map(_is_size, (*shape, begin, end))):
                raise CorruptSource(f"{path}: {name} has an impossible shape or byte range: {excerpt(entry)}")
        case _:
            raise CorruptSource(f"{path}: the header's entry for {name} is broken: {excerpt(entry)}")
    known = DType.__members__.get(dtype)
    if known and end - begin != prod(shape) * known.itemsize:
        raise CorruptSource(f"{path}: {name} has shape {shape} and type {dtype}, but {end - begin} bytes")
    return dtype, tuple(shape), begin, end


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _dtype(path: Path, name: str, dtype: str) -> DType:
    if dtype not in DType.__members__:
        what = f"{name} is stored as {dtype[:20]}"
        raise UnsupportedModel(f"{path}: {what}; only F32, F16 and BF16 can be converted")
    return DType[dtype]


def _check_ranges(path: Path, ranges: dict[str, tuple[int, int]], size: int) -> None:
    """The tensors' bytes follow each other without a gap from 0 to `size`."""
    ordered = sorted(ranges.items(), key=lambda item: item[1])
    last = ordered[-1][1][1] if ordered else 0
    if last > size:
        raise CorruptSource(f"{path}: cut short, {last - size} bytes are missing (the last tensor is {ordered[-1][0]})")
    if ordered and (ordered[0][1][0] != 0 or last != size):
        raise CorruptSource(f"{path}: the tensors do not cover all data of the file")
    for (first, (_, end)), (second, (begin, _)) in pairwise(ordered):
        if end != begin:
            raise CorruptSource(f"{path}: {first} and {second} overlap or leave a gap")
