"""Headers of GGUF files: whole, damaged, cut off, or of something else."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from llama_backend.errors import ModelUnreadable
from llama_backend.gguf import check_magic, read_metadata
from tests.gguf_files import Array, Typed, gguf

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.file_type": 3,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "tokenizer.ggml.scores": Array(6, [0.5, 1.5]),
    "nested": Array(9, [["x"], Array(4, [1, 2])]),
    "tokenizer.ggml.add_bos_token": True,
    "llama.context_length": 2048,
}
SCALARS = {key: value for key, value in METADATA.items() if not isinstance(value, list | Array)}


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_scalars_are_read_and_arrays_left_out(tmp_path: Path, version: int) -> None:
    assert read_metadata(write(tmp_path, gguf(METADATA, version) + b"tensors")) == SCALARS


@pytest.mark.parametrize(
    ("kind", "value"),
    [(0, 255), (1, -1), (2, 65535), (3, -5), (4, 7), (5, -7), (6, 0.5), (7, False), (10, 2**63), (11, -3), (12, 0.1)],
)
def test_every_scalar_type(tmp_path: Path, kind: int, value: Any) -> None:
    assert read_metadata(write(tmp_path, gguf({"x": Typed(kind, value)}))) == {"x": value}


def test_no_metadata_at_all(tmp_path: Path) -> None:
    assert read_metadata(write(tmp_path, gguf({}))) == {}


def test_a_file_cut_off_anywhere_in_its_header_is_unreadable(tmp_path: Path) -> None:
    data = gguf(METADATA)
    for size in range(len(data)):
        with pytest.raises(ModelUnreadable, match=r"model\.gguf: .*(too short|cut off)"):
            read_metadata(write(tmp_path, data[:size]))


def test_a_text_cut_off_at_the_end_is_unreadable(tmp_path: Path) -> None:
    data = gguf({"a": 1, "general.name": "a long name"})
    with pytest.raises(ModelUnreadable, match="cut off"):
        read_metadata(write(tmp_path, data[:-3]))


@pytest.mark.parametrize(
    "data",
    [
        gguf(METADATA, version=1),
        gguf(METADATA, version=4),
        struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
        gguf({}, keys=2**64 - 1),
        gguf({}, keys=5),
        gguf({}, keys=1) + struct.pack("<Q", 2**63) + b"x" * 50,
        gguf({}, keys=1) + struct.pack("<Q1sI", 1, b"x", 13),
        gguf({}, keys=1) + struct.pack("<Q1sI", 1, b"\xff", 4) + b"1234",
        gguf({}, keys=1) + struct.pack("<Q1sIIQ", 1, b"x", 9, 4, 2**62),
        gguf({}, keys=1) + struct.pack("<Q1sIIQ", 1, b"x", 9, 8, 2**62),
        gguf({}, keys=2) + struct.pack("<Q1sIIQ", 1, b"x", 9, 10, 2**64 - 1) + b"more",
        gguf({}, keys=1) + struct.pack("<Q1sI", 1, b"x", 9) + struct.pack("<IQ", 9, 1) * 100_000,
    ],
)
def test_damaged_headers_are_unreadable(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelUnreadable, match="damaged or cut off"):
        read_metadata(write(tmp_path, data))


def test_random_damage_never_raises_anything_else(tmp_path: Path) -> None:
    random, data = Random(1), gguf(METADATA)
    for _ in range(500):
        damaged = bytearray(data)
        for _ in range(random.randint(1, 4)):
            damaged[random.randrange(4, len(data))] = random.randrange(256)
        with suppress(ModelUnreadable):
            read_metadata(write(tmp_path, bytes(damaged)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short for a GGUF file \\(0 bytes\\)"),
        (b"GGUF", "too short for a GGUF file \\(4 bytes\\)"),
        (b"PK\x03\x04 a zip file", "no GGUF file \\(it starts with b'PK"),
        (b"<!doctype html><html>", "no GGUF file \\(it starts with b'<!do'"),
    ],
)
def test_other_files_are_told_by_their_beginning(tmp_path: Path, data: bytes, reason: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(ModelUnreadable, match=reason):
        check_magic(path)
    with pytest.raises(ModelUnreadable, match=reason):
        read_metadata(path)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match="cannot be read: No such file"):
        check_magic(tmp_path / "nowhere.gguf")
    with pytest.raises(ModelUnreadable, match="cannot be read: Is a directory"):
        check_magic(tmp_path)


def test_the_demo_model(demo_model: Path) -> None:
    metadata = read_metadata(demo_model)
    assert metadata["general.architecture"] == "llama"
    assert metadata["llama.context_length"] == 8192
