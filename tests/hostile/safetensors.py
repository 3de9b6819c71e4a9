"""Safetensors files whose headers lie, are damaged, or are no such headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from llama_convert.checkpoint.safetensors import read_safetensors
from llama_convert.errors import ConvertError
from tests.hostile.bounded import opened
from tests.hostile.mutation import mutated
from tests.hostile.trial import Trial

MEMORY = 64 << 20
SECONDS = 10.0

NUMBERS = st.one_of(
    st.integers(-2, 40),
    st.sampled_from([2**31, 2**62, 2**64, 10**300, -1, 0.5, 16.0, float("inf"), float("nan"), True, None]),
)
_SHAPES = st.one_of(st.lists(NUMBERS, max_size=3), st.just([1] * 5000), NUMBERS)
_ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I32", "", "x" * 10_000, 5, ["F32"]]),
        "shape": _SHAPES,
        "data_offsets": st.one_of(st.lists(NUMBERS, min_size=2, max_size=2), _SHAPES),
    },
)
_NAMES = st.sampled_from(["a", "b", "model.norm.weight", "__metadata__", "\x1b[31m", "\u202e", "x" * 10_000, ""])
_HEADERS = st.one_of(st.dictionaries(_NAMES, _ENTRIES, max_size=4), _ENTRIES, st.lists(_ENTRIES, max_size=2))


def _whole(header: Any, data: int = 32) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + bytes(data)


_RIGHT = _whole(
    {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F16", "shape": [8], "data_offsets": [16, 32]},
    }
)


def read(case: bytes, folder: Path) -> object:
    path = folder / "model.safetensors"
    path.write_bytes(case)
    return read_safetensors(path)


SAFETENSORS = Trial(
    "safetensors",
    st.one_of(_HEADERS.map(_whole), mutated(st.just(_RIGHT)), mutated(_HEADERS.map(_whole))),
    opened(read, ConvertError, MEMORY, SECONDS),
    examples=300,
    known=(
        _whole(b'{"a": {"dtype": "F32", "shape": [Infinity], "data_offsets": [0, 16]}}'),
        _whole(b'{"a": {"dtype": "F32", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 16]}}'),
        _whole(b'{"a":' * 50_000),
        _whole(b"[" + b"[]," * 100_000 + b"[]]"),
        _whole(b'{"a": 1, "a": 2}'),
    ),
)
