"""Headers of GGUF files that lie, are damaged, or promise more than there is, before both readers of them."""

from __future__ import annotations

import struct
from pathlib import Path

from hypothesis import strategies as st

from llama_backend.engine.placement.model_file import ModelFile
from llama_backend.errors import BackendError
from llama_backend.models.gguf import check_magic, read_metadata, tensor_bytes
from llama_convert.errors import ConvertError
from llama_convert.gguf.reader import read_gguf
from llama_convert.quant.imatrix import read_imatrix
from tests.hostile.bounded import opened
from tests.hostile.mutation import mutated
from tests.hostile.trial import Trial
from tests.support.gguf_files import Array, gguf_with_tensors, text

MEMORY = 64 << 20
SECONDS = 10.0

_COUNTS = st.one_of(st.integers(0, 4), st.sampled_from([2**16 + 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]))
_NAMES = st.sampled_from(
    [
        "general.architecture",
        "general.alignment",
        "general.name",
        "split.count",
        "llama.context_length",
        "llama.block_count",
        "llama.embedding_length",
        "llama.attention.head_count",
        "llama.attention.head_count_kv",
        "a.in_sum2",
        "",
    ]
)
_TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["llama", "\x1b[31m", "x" * 5000]))


def _lying_text(length: int) -> bytes:
    return struct.pack("<Q", length) + b"abc"


_STRINGS = st.one_of(_TEXTS.map(text), _COUNTS.map(_lying_text), st.just(struct.pack("<Q", 2) + b"\xff\xfe"))


@st.composite
def _payloads(draw: st.DrawFn, kind: int) -> bytes:
    """What a value of the type `kind` might be stored as."""
    if kind == 8:
        return draw(_STRINGS)
    if kind == 9:
        inner = draw(st.integers(0, 13))
        items = b"".join(draw(st.lists(_payloads(inner), max_size=3)))
        return struct.pack("<IQ", inner, draw(_COUNTS)) + items
    return draw(st.binary(min_size=8, max_size=8))[: {0: 1, 1: 1, 2: 2, 3: 2, 7: 1, 10: 8, 11: 8, 12: 8}.get(kind, 4)]


@st.composite
def _pairs(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 13))
    return text(draw(_NAMES)) + struct.pack("<I", kind) + draw(_payloads(kind))


@st.composite
def _tensors(draw: st.DrawFn) -> bytes:
    dims = draw(st.lists(_COUNTS, max_size=5))
    rank = draw(st.sampled_from([len(dims)] * 4 + [2**32 - 1]))
    name = draw(st.sampled_from(["a", "a.in_sum2", "a.counts", "blk.0.attn_q.weight"]))
    shape = struct.pack(f"<I{len(dims)}Q", rank, *dims)
    return text(name) + shape + struct.pack("<IQ", draw(st.integers(0, 40)), draw(_COUNTS))


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A header of values and tensors, with their true numbers in most cases, and some data."""
    pairs, tensors = draw(st.lists(_pairs(), max_size=5)), draw(st.lists(_tensors(), max_size=3))
    counts = draw(st.sampled_from([(len(tensors), len(pairs))] * 4 + [(2**64 - 1, 1), (0, 2**63), (2**16, 2**13)]))
    version = draw(st.sampled_from([3, 3, 3, 2, 1, 2**32 - 1]))
    whole = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(tensors)
    return whole + bytes(draw(st.sampled_from([0, 1, 64, 4096])))


def read_in_backend(case: bytes, folder: Path) -> object:
    """All that the backend reads of a model before llama.cpp does."""
    path = folder / "model-00001-of-00002.gguf"
    path.write_bytes(case)
    check_magic(path)
    return read_metadata(path), tensor_bytes(path), ModelFile(path).shape("f16")


def read_in_converter(case: bytes, folder: Path) -> object:
    """As a model, and as an importance matrix."""
    path = folder / "model.gguf"
    path.write_bytes(case)
    found = read_gguf(path)
    return found.text("general.name"), read_imatrix(path, {"a": (4, 4)})


def read_imatrix_file(case: bytes, folder: Path) -> object:
    (folder / "imatrix").write_bytes(case)
    return read_imatrix(folder / "imatrix", {"a": (4, 2)})


_LEGACY = struct.pack("<2i1s2i", 1, 1, b"a", 1, 2) + bytes(8)
"""An importance matrix of the time before GGUF."""

CASES = st.one_of(heads(), mutated(heads()))
KNOWN = (
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.alignment") + struct.pack("<II", 4, 0),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("general.alignment") + struct.pack("<I", 8) + text("x"),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("split.count") + struct.pack("<IQ", 10, 2**63),
    gguf_with_tensors({"general.architecture": "llama", "llama.block_count": 2**31}, {"blk.0.a": 32}),
    gguf_with_tensors(
        {
            "general.architecture": "llama",
            "llama.block_count": 2,
            "llama.attention.head_count": Array(11, [-(2**63), 0]),
        },
        {"blk.0.a": 32},
    ),
    b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("split.count") + struct.pack("<I", 8) + text("x"),
)
GGUF_IN_BACKEND = Trial(
    "gguf-in-backend", CASES, opened(read_in_backend, BackendError, MEMORY, SECONDS), examples=300, known=KNOWN
)
GGUF_IN_CONVERTER = Trial(
    "gguf-in-converter", CASES, opened(read_in_converter, ConvertError, MEMORY, SECONDS), examples=300, known=KNOWN
)
IMPORTANCE = Trial(
    "importance",
    st.one_of(mutated(st.just(_LEGACY)), st.binary(max_size=60)),
    opened(read_imatrix_file, ConvertError, MEMORY, SECONDS),
    examples=300,
    known=(struct.pack("<4i", 2**31 - 1, -4, 0, -12) + bytes(40),),
)
