"""Files that were made to do harm are refused at once, with the file and the reason, in little memory."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import ConvertError, CorruptSource
from llama_convert.foreign import MOST_MEMORY
from llama_convert.source import open_checkpoint
from tests.convert.layouts import TinyLlama, random_weights, write_hf_folder, write_torch_zip
from tests.hostile.bounded import Reader, reader

MODEL = TinyLlama(layers=1)
SECONDS = 30.0
"""Far more than any of these takes, on a busy machine too; what they did before took hours."""


def read_pickle(case: bytes, folder: Path) -> object:
    write_torch_zip(folder / "model.bin", case, {})
    return read_torch_file(folder / "model.bin")


def read_zip(case: bytes, folder: Path) -> object:
    (folder / "model.bin").write_bytes(case)
    return read_torch_file(folder / "model.bin")


@pytest.fixture(scope="module")
def pickles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    with reader(read_pickle, ConvertError, tmp_path_factory.mktemp("pickles")) as process:
        yield process


NESTED_KEY = b"\x80\x02})" + b"2\x86" * 40 + b"Nu."
"""A dictionary whose key is a pair of a pair of …: hashing it takes 2**40 steps."""
SHARED_KEY = b"\x80\x02})" + b"q\x00h\x00\x86" * 40 + b"Ns."
"""The same without DUP: from the memo, as PyTorch shares values too."""
BOMBS = {
    "a key that takes for ever to hash": NESTED_KEY,
    "a shared key that takes for ever to hash": SHARED_KEY,
    "a place in the memo beyond all memory": b"\x80\x02}r" + struct.pack("<I", 1 << 28) + b".",
    "the same in digits": b"\x80\x02}p268435455\n.",
    "millions of empty dictionaries": b"\x80\x02" + b"}" * 8_000_000 + b".",
    "millions of tuples in tuples": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "numbers that collide as keys": b"\x80\x02}("
    + b"".join(b"\x8a\x0c" + (index * (2**61 - 1)).to_bytes(12, "little") + b"N" for index in range(100_000))
    + b"u.",
    "a table of a table of a table": b"\x80\x02" + b"}X\x01\0\0\0a" * 300_000 + b"N" + b"s" * 300_000 + b".",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_pickle_that_is_a_bomb_is_read_in_little_time_and_memory(pickles: Reader, name: str) -> None:
    pickles.read(BOMBS[name]).check(MOST_MEMORY // 4, SECONDS)


def test_a_very_long_name_in_a_pickle_is_not_repeated(pickles: Reader) -> None:
    outcome = pickles.read(b"\x80\x02cos\n" + b"\x1b[31m" * 1_000_000 + b"\n.")
    outcome.check(MOST_MEMORY // 4, SECONDS)
    assert "it asks for 'os." in outcome.text
    assert len(outcome.text) < 400


def deflated(path: Path) -> bytes:
    """A zip of a pickle that unpacks to a hundred times its size, and claims another size in its list of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"}" * 400_000_000 + b".")
    raw = path.read_bytes()
    at = raw.rindex(b"PK\x01\x02")
    return raw[: at + 24] + struct.pack("<I", 1000) + raw[at + 28 :]


def test_a_compressed_pickle_is_not_unpacked(tmp_path: Path) -> None:
    case = deflated(tmp_path / "bomb.zip")
    with reader(read_zip, ConvertError, tmp_path) as process:
        outcome = process.read(case)
    outcome.check(MOST_MEMORY // 8, SECONDS)
    assert "model.bin: 'archive/data.pkl' has 1000 bytes, compressed or not, which is no table" in outcome.text


def test_a_zip_with_a_huge_list_of_files_is_not_read(tmp_path: Path) -> None:
    size = 600 << 20
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, size, 0, 0)
    with reader(read_sparse_zip, ConvertError, tmp_path) as process:
        outcome = process.read(struct.pack("<Q", size) + end)
    outcome.check(MOST_MEMORY // 8, SECONDS)
    assert "a piece of more than" in outcome.text


def read_sparse_zip(case: bytes, folder: Path) -> object:
    with (folder / "model.bin").open("wb") as file:
        file.seek(*struct.unpack_from("<Q", case))
        file.write(case[8:])
    return read_torch_file(folder / "model.bin")


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    made = write_hf_folder(tmp_path / "hf", MODEL, random_weights(MODEL), shards=2)
    shutil.copy(spm_model, made)
    return made


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path.name)


def make_folder(path: Path) -> None:
    path.mkdir()


KINDS = {"named pipe": make_pipe, "device": make_device_link, "socket": make_socket, "folder": make_folder}
FILES = [
    "config.json",
    "model.safetensors.index.json",
    "model-00002-of-00002.safetensors",
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
    "pytorch_model.bin",
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_what_is_no_regular_file_never_holds_up(
    folder: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused by name, or not taken for one of the source's files at all."""
    monkeypatch.chdir(folder)
    if name == "pytorch_model.bin":
        for path in folder.glob("model*"):
            path.unlink()
    (folder / name).unlink(missing_ok=True)
    KINDS[kind](folder / name)
    with suppress(ConvertError):
        open_checkpoint(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_no_regular_file_are_refused(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "model.safetensors.index.json").unlink()
    KINDS[kind](folder / "model-00003.safetensors")
    with pytest.raises(CorruptSource, match=rf"model-00003\.safetensors: is a {kind}, not a regular file"):
        open_checkpoint(folder)
