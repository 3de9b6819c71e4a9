"""Pickles of any instructions, bombs among them, inside the zip that PyTorch writes; and that zip damaged."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import ConvertError
from tests.hostile.bounded import opened
from tests.hostile.mutation import mutated
from tests.hostile.trial import Trial
from tests.support.convert.layouts import write_torch_file, write_torch_zip

MEMORY = 256 << 20
SECONDS = 20.0
"""A pickle may have a million instructions, which take about two seconds."""


def _text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def _name(name: str) -> bytes:
    return b"c" + name.encode() + b"\n"


_NAMES = st.sampled_from(
    [
        "collections\nOrderedDict",
        "torch._utils\n_rebuild_tensor_v2",
        "torch._utils\n_rebuild_parameter",
        "torch._tensor\n_rebuild_from_type_v2",
        "torch\nTensor",
        "torch\nHalfStorage",
        "torch\nLongStorage",
        "os\nsystem",
        "builtins\neval",
    ]
).map(_name)
_TEXTS = st.sampled_from(["storage", "0", "cpu", "a.weight", "state_dict", "\ud800", "x" * 3000]).map(_text)
_NUMBERS = st.one_of(
    st.binary(min_size=1, max_size=1).map(lambda raw: b"K" + raw),
    st.integers(-(2**31), 2**31 - 1).map(lambda value: b"J" + struct.pack("<i", value)),
    st.binary(max_size=255).map(lambda raw: b"\x8a" + bytes([len(raw)]) + raw),
)
_MEMO = st.one_of(
    st.integers(0, 3).map(lambda index: b"q" + bytes([index])),
    st.integers(0, 3).map(lambda index: b"h" + bytes([index])),
    st.sampled_from([b"\x94", b"r" + struct.pack("<I", 2**32 - 1), b"j" + struct.pack("<I", 2**28), b"p99999999999\n"]),
)
_BARE = st.sampled_from([bytes([code]) for code in b"()]}N.\x88\x89\x85\x86\x87taeusbRQ\x932\x81\x8f0lod1"])
_STORAGE = st.just(b"(" + _text("storage") + b"ctorch\nHalfStorage\n" + _text("0") + _text("cpu") + b"K\x08tQ")
_STEPS = st.one_of(_BARE, _BARE, _NAMES, _TEXTS, _NUMBERS, _MEMO, _STORAGE, st.binary(min_size=1, max_size=3))
_PROGRAMS = st.lists(_STEPS, max_size=40).map(lambda steps: b"\x80\x02}(" + b"".join(steps) + b".")


def _right() -> tuple[bytes, bytes]:
    """A zip as PyTorch writes it, and the pickle inside."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.bin"
        write_torch_file(path, {"a.weight": np.ones((4, 2), np.float16), "b.weight": np.ones(3, np.float32)})
        raw = path.read_bytes()
    start = raw.index(b"\x80\x02")
    return raw, raw[start : raw.index(b".PK", start) + 1]


_ZIP, _PICKLE = _right()
BOMBS = {
    "a key that takes for ever to hash": b"\x80\x02})" + b"2\x86" * 40 + b"Ns.",
    "the same without DUP, from the memo": b"\x80\x02})" + b"q\x00h\x00\x86" * 40 + b"Ns.",
    "a place in the memo beyond all memory": b"\x80\x02}r" + struct.pack("<I", 1 << 28) + b".",
    "the same in digits": b"\x80\x02}p268435455\n.",
    "millions of empty dictionaries": b"\x80\x02" + b"}" * 8_000_000 + b".",
    "tuples in tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "numbers that collide as keys": b"\x80\x02}("
    + b"".join(b"\x8a\x0c" + (index * (2**61 - 1)).to_bytes(12, "little") + b"N" for index in range(100_000))
    + b"u.",
    "a table of a table of a table": b"\x80\x02" + (b"}" + _text("a")) * 300_000 + b"N" + b"s" * 300_000 + b".",
    "a list that holds itself": b"\x80\x02]q\x00h\x00a.",
    "a very long name": b"\x80\x02cos\n" + b"\x1b[31m" * 1_000_000 + b"\n.",
}


def read_pickle(case: bytes, folder: Path) -> object:
    """The case as the pickle of an archive that is otherwise in order."""
    write_torch_zip(folder / "model.bin", case, {"0": bytes(16), "1": bytes(12)})
    return read_torch_file(folder / "model.bin")


def read_archive(case: bytes, folder: Path) -> object:
    (folder / "model.bin").write_bytes(case)
    return read_torch_file(folder / "model.bin")


PICKLES = Trial(
    "pickles",
    st.one_of(_PROGRAMS, mutated(st.just(_PICKLE)), mutated(_PROGRAMS)),
    opened(read_pickle, ConvertError, MEMORY, SECONDS),
    examples=300,
    known=tuple(BOMBS.values()),
)
ARCHIVES = Trial(
    "archives", mutated(st.just(_ZIP), most=6), opened(read_archive, ConvertError, MEMORY, SECONDS), examples=200
)
