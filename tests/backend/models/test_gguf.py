"""Headers of GGUF files: whole, damaged, cut off, or of something else."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_backend.errors import ModelUnreadable
from llama_backend.models.gguf import check_magic, read_metadata, tensor_bytes
from tests.support.gguf_files import Array, Typed, gguf

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.file_type": 3,
    "llama.rope.freq_base": 10000.0,
    "tokenizer.ggml.tokens": ["a", "bc", ""],
    "tokenizer.ggml.scores": Array(6, [0.5, 1.5]),
    "nested": Array(9, [["x"], Array(4, [1, 2])]),
    "tokenizer.ggml.add_bos_token": True,
    "llama.context_length": 2048,
    "llama.attention.head_count_kv": Array(5, [8, 8, 4]),
}
KNOWN = {key: value for key, value in METADATA.items() if not isinstance(value, list | Array)} | {
    "llama.attention.head_count_kv": (8, 8, 4)
}
"""What is kept of it."""


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_scalars_are_read_and_numbers_by_layer(tmp_path: Path, version: int) -> None:
    assert read_metadata(write(tmp_path, gguf(METADATA, version) + b"tensors")) == KNOWN


def test_arrays_about_tokens_are_left_out(tmp_path: Path) -> None:
    kinds = {"tokenizer.ggml.token_type": Array(5, [1] * 2000), "llama.block_count": 2}
    assert read_metadata(write(tmp_path, gguf(kinds))) == {"llama.block_count": 2}


def test_only_so_many_arrays_are_kept(tmp_path: Path) -> None:
    metadata = read_metadata(write(tmp_path, gguf({f"a{number}": Array(0, [1] * 1000) for number in range(1000)})))
    assert len(metadata) == 65


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


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "too short for a GGUF file \\(0 bytes\\)"),
        (b"GGUF", "too short for a GGUF file \\(4 bytes\\)"),
        (b"PK\x03\x04 a zip file", "not a GGUF file \\(it starts with b'PK"),
        (b"<!doctype html><html>", "not a GGUF file \\(it starts with b'<!do'"),
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


def sparse(folder: Path, head: bytes, size: int) -> Path:
    """A file of that size that takes no disk."""
    path = write(folder, head)
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (gguf({}, keys=1) + struct.pack("<Q1sIQ", 1, b"x", 8, 6 << 30), "6442450945 bytes of text"),
        (gguf({}, keys=1) + struct.pack("<Q", 6 << 30), "6442450944 bytes of text"),
        (gguf({}, keys=1) + struct.pack("<Q1sIIQ", 1, b"x", 9, 8, 800 << 20), "838860800 texts"),
        (gguf({}, keys=1) + struct.pack("<Q1sIIQ", 1, b"x", 9, 9, 800 << 20), "838860800 texts"),
        (gguf({}, keys=10_001), "10001 keys"),
        (gguf({}, keys=1) + struct.pack("<Q1sIIQ", 1, b"x", 9, 0, 5 << 30) + b"x", "cut off"),
    ],
)
def test_a_large_file_whose_header_claims_as_much_is_refused_at_once(tmp_path: Path, head: bytes, reason: str) -> None:
    path = sparse(tmp_path, head, 7 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(ModelUnreadable, match=reason):
            read_metadata(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("tensors", [2**16 + 1, 2**64 - 1])
def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path, tensors: int) -> None:
    path = sparse(tmp_path, gguf({}, tensors=tensors), 7 << 30)
    with pytest.raises(ModelUnreadable, match=f"{tensors} tensors"):
        tensor_bytes(path)


@pytest.mark.parametrize("count", [Typed(10, 2**63), Typed(4, 1001), "x", 2.5])
def test_a_model_in_impossibly_many_files_is_refused(tmp_path: Path, count: Any) -> None:
    with pytest.raises(ModelUnreadable, match=r"one of .* files"):
        tensor_bytes(write(tmp_path, gguf({"split.count": count})))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("read", [check_magic, read_metadata, tensor_bytes])
def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path, read: Callable[[Path], object]) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "zero.gguf").symlink_to("/dev/zero")
    for name in ("pipe.gguf", "zero.gguf"):
        with pytest.raises(ModelUnreadable, match=f"{name}: cannot be read: it is not a regular file"):
            read(tmp_path / name)


def test_little_memory_is_told_and_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    path = write(tmp_path, gguf(METADATA))
    monkeypatch.setattr("llama_backend.models.gguf.mmap.mmap", fail)
    with pytest.raises(ModelUnreadable, match="cannot be read: Cannot allocate memory"):
        read_metadata(path)


def test_a_large_model_needs_little_address_space(tmp_path: Path) -> None:
    """Only its beginning is mapped, so that a limit on address space does not matter."""
    path = sparse(tmp_path, gguf(METADATA), 1 << 40)
    script = (
        "import resource, sys; from pathlib import Path; from llama_backend.models.gguf import read_metadata\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)); print(read_metadata(Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True)
    assert "llama.context_length" in done.stdout
