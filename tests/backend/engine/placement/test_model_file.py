"""Sizes of a model's parts, from its file's header alone."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from llama_backend.engine.llama.model import Model
from llama_backend.engine.placement.model_file import ModelFile
from llama_backend.errors import ModelUnreadable
from llama_backend.models.gguf import tensor_bytes
from llama_backend.wire.ipc import KVType
from tests.support.gguf_files import Array, gguf_with_tensors

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


def write(folder: Path, data: bytes, name: str = "m.gguf") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("alignment", [32, 64])
def test_tensors_reach_from_one_to_the_next(tmp_path: Path, alignment: int) -> None:
    tensors = {name: size * alignment // 32 for name, size in TENSORS.items()}
    metadata = METADATA | {"general.alignment": alignment}
    assert tensor_bytes(write(tmp_path, gguf_with_tensors(metadata, tensors, alignment))) == tensors


def test_the_files_of_one_model_add_up(tmp_path: Path) -> None:
    metadata = METADATA | {"split.count": 2}
    first = write(tmp_path, gguf_with_tensors(metadata, {"blk.0.a": 64}), "m-00001-of-00002.gguf")
    with pytest.raises(ModelUnreadable, match="m-00002-of-00002"):
        tensor_bytes(first)
    write(tmp_path, gguf_with_tensors(metadata, {"blk.1.a": 32}), "m-00002-of-00002.gguf")
    assert tensor_bytes(first) == {"blk.0.a": 64, "blk.1.a": 32}


@pytest.mark.parametrize("cut", range(1, 1100, 37))
def test_a_file_that_is_cut_off_is_unreadable_or_short(tmp_path: Path, cut: int) -> None:
    path = write(tmp_path, gguf_with_tensors(METADATA, TENSORS)[:-cut])
    with suppress(ModelUnreadable):
        assert sum(tensor_bytes(path).values()) < sum(TENSORS.values())


def test_layers_and_output(tmp_path: Path) -> None:
    shape = ModelFile(write(tmp_path, gguf_with_tensors(METADATA, TENSORS))).shape("f16")
    assert (shape.layers, shape.output) == ((96, 96), 32 + 640)
    assert (shape.n_embd, shape.n_ff, shape.n_vocab, shape.kv_per_token) == (64, 128, 1000, (2 * 2 * 16 * 2,) * 2)
    own = TENSORS | {"output.weight": 320}
    assert ModelFile(write(tmp_path, gguf_with_tensors(METADATA, own))).shape("f16").output == 32 + 320


def test_layers_may_differ(tmp_path: Path) -> None:
    """What is computed takes as much as the widest layer."""
    differing = {"llama.attention.head_count_kv": Array(5, [4, 1]), "llama.feed_forward_length": Array(4, [128, 512])}
    shape = ModelFile(write(tmp_path, gguf_with_tensors(METADATA | differing, TENSORS))).shape("f16")
    assert list(shape.kv_per_token) == [4 * 2 * 16 * 2, 1 * 2 * 16 * 2]
    assert shape.n_ff == 512


def test_a_header_without_layers(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match="how many layers"):
        ModelFile(write(tmp_path, gguf_with_tensors({"general.architecture": "llama"}, TENSORS)))


def test_a_header_with_too_many_layers(tmp_path: Path) -> None:
    with pytest.raises(ModelUnreadable, match="2000000000 layers"):
        ModelFile(write(tmp_path, gguf_with_tensors(METADATA | {"llama.block_count": 2_000_000_000}, TENSORS)))


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_the_header_says_what_the_loaded_model_does(demo_model: Path, model: Model, kv_type: KVType) -> None:
    file = ModelFile(demo_model)
    shape = file.shape(kv_type)
    assert sum(shape.layers) + shape.output == model.size
    assert (len(shape.layers), file.context_trained) == (model.layers, model.context_trained)
    assert file.kv_size == model.kv_size
