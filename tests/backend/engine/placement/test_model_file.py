"""Sizes of a model's parts, from its file's header alone."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llama_backend.engine.llama.model import Model
from llama_backend.engine.placement.model_file import ModelFile
from llama_backend.errors import ModelUnreadable
from llama_backend.models.gguf import tensor_bytes
from llama_backend.wire.ipc import KVType
from tests.support.gguf_files import gguf, text

METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
    "llama.feed_forward_length": 128,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.vocab_size": 1000,
}
TENSORS = {"token_embd.weight": 640, "blk.0.a": 64, "blk.0.b": 32, "blk.1.a": 96, "output_norm.weight": 32}


def whole(metadata: dict[str, Any], tensors: dict[str, int], alignment: int = 32) -> bytes:
    """A file with tensors of so many bytes, each one-dimensional; sizes are multiples of the alignment."""
    table, at = b"", 0
    for name, size in tensors.items():
        table += text(name) + struct.pack("<IQIQ", 1, size // 4, 0, at)
        at += size
    header = gguf(metadata, tensors=len(tensors)) + table
    return header + bytes(-len(header) % alignment) + bytes(at)


def write(folder: Path, data: bytes, name: str = "m.gguf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("alignment", [32, 64])
def test_tensors_reach_from_one_to_the_next(tmp_path: Path, alignment: int) -> None:
    tensors = {name: size * alignment // 32 for name, size in TENSORS.items()}
    metadata = METADATA | {"general.alignment": alignment}
    assert tensor_bytes(write(tmp_path, whole(metadata, tensors, alignment))) == tensors


def test_the_files_of_one_model_add_up(tmp_path: Path) -> None:
    metadata = METADATA | {"split.count": 2}
    first = write(tmp_path, whole(metadata, {"blk.0.a": 64}), "m-00001-of-00002.gguf")
    with pytest.raises(ModelUnreadable, match="m-00002-of-00002"):
        tensor_bytes(first)
    write(tmp_path, whole(metadata, {"blk.1.a": 32}), "m-00002-of-00002.gguf")
    assert tensor_bytes(first) == {"blk.0.a": 64, "blk.1.a": 32}


@pytest.mark.parametrize("cut", range(1, 1100, 37))
def test_a_file_that_is_cut_off_is_unreadable_or_short(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, whole(METADATA, TENSORS)[:-cut])
    with suppress(ModelUnreadable):
        assert sum(tensor_bytes(path).values()) < sum(TENSORS.values())


def test_layers_and_output(tmp_path: Path) -> None:
    shape = ModelFile(write(tmp_path, whole(METADATA, TENSORS))).shape("f16")
    assert (shape.layers, shape.output) == ((96, 96), 32 + 640)
    assert (shape.n_embd, shape.n_ff, shape.n_vocab, shape.kv_per_token) == (64, 128, 1000, 2 * 2 * 16 * 2)
    own = TENSORS | {"output.weight": 320}
    assert ModelFile(write(tmp_path, whole(METADATA, own))).shape("f16").output == 32 + 320


def test_heads_of_another_size(tmp_path: Path) -> None:
    metadata = METADATA | {"llama.attention.key_length": 32, "llama.attention.value_length": 8}
    assert ModelFile(write(tmp_path, whole(metadata, TENSORS))).shape("f16").kv_per_token == 2 * (32 + 8) * 2


def test_a_header_without_layers(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match="how many layers"):
        ModelFile(write(tmp_path, whole({"general.architecture": "llama"}, TENSORS)))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_the_header_says_what_the_loaded_model_does(demo_model: Path, model: Model, kv_type: KVType) -> None:
    file = ModelFile(demo_model)
    shape = file.shape(kv_type)
    assert sum(shape.layers) + shape.output == model.size
    assert (len(shape.layers), file.context_trained) == (model.layers, model.context_trained)
    assert file.kv_bytes_per_token(kv_type) == model.kv_bytes_per_token(kv_type)
