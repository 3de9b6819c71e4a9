"""A source that cannot be converted is refused with the file and the reason, before anything is written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_convert.checkpoint.tensor import DType
from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import CorruptSource, SourceNotFound, UnsupportedModel
from llama_convert.llama_checkpoint import open_checkpoint
from tests.support.convert.layouts import (
    TinyLlama,
    random_weights,
    write_hf_folder,
    write_safetensors,
    write_torch_file,
    write_torch_zip,
)
from tests.support.convert.single_file import write_gguf

MODEL = TinyLlama(layers=1)


@pytest.fixture
def folder(tmp_path: Path, spm_model: Path) -> Path:
    made = write_hf_folder(tmp_path / "hf", MODEL, random_weights(MODEL), shards=2)
    shutil.copy(spm_model, made)
    return made


def _config(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(json.dumps(MODEL.config(**changes)))


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _shorten(name: str) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 100)


SHARD = "model-00002-of-00002.safetensors"


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (_config(architectures=["GPT2LMHeadModel"]), UnsupportedModel, "GPT2LMHeadModel"),
        (_config(quantization_config={"quant_method": "gptq"}), UnsupportedModel, "quantised already.*gptq"),
        (_config(quantization_config={"quant_method": "awq"}), UnsupportedModel, "awq"),
        (_config(quantization_config={"quant_method": "bitsandbytes"}), UnsupportedModel, "bitsandbytes"),
        (_config(quantization_config={"quant_method": "fp8"}), UnsupportedModel, "fp8"),
        (_config(rope_scaling={"type": "dynamic", "factor": 2}), UnsupportedModel, "dynamic"),
        (_config(rope_scaling={"type": "linear"}), CorruptSource, "rope_scaling.factor is missing"),
        (_config(rope_scaling="linear"), CorruptSource, "config.json"),
        (_config(num_attention_heads=7), CorruptSource, "7 heads"),
        (_config(hidden_size=None), CorruptSource, "config.json"),
        (_config(intermediate_size=999), CorruptSource, r"gate_proj.*\[352, 256\].*\[999, 256\]"),
        (_config(num_hidden_layers=2), CorruptSource, r"do not hold model\.layers\.1"),
        (_config(num_hidden_layers=0), CorruptSource, "num_hidden_layers is 0, but should be"),
        (_config(hidden_act="gelu"), UnsupportedModel, "gelu"),
        (lambda folder: (folder / "added_tokens.json").write_text('{"a": []}'), CorruptSource, "added tokens"),
        (_remove("config.json"), SourceNotFound, "config.json"),
        (_remove("tokenizer.model"), SourceNotFound, r"tokenizer\.model"),
        (_remove(SHARD), SourceNotFound, SHARD),
        (_shorten(SHARD), CorruptSource, f"{SHARD}.*cut short, 100 bytes"),
        (_shorten("tokenizer.model"), CorruptSource, "tokenizer.model"),
        (lambda folder: (folder / SHARD).write_bytes(b"\xff" * 64), CorruptSource, SHARD),
        (lambda folder: (folder / SHARD).write_bytes(b""), CorruptSource, SHARD),
        (lambda folder: (folder / "config.json").write_text("{"), CorruptSource, "config.json"),
        (lambda folder: (folder / "tokenizer.model").write_bytes(b"IQ== 0\n"), CorruptSource, "tokenizer.model"),
    ],
)
def test_spoiled_folders_are_refused(folder: Path, spoil: Callable[[Path], object], error: Any, message: str) -> None:
    spoil(folder)
    with pytest.raises(error, match=message):
        open_checkpoint(folder)


def test_an_adapter_alone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModel, match="adapter"):
        open_checkpoint(tmp_path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="nowhere"):
        open_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16])
def test_numbers_that_are_none_are_found(tmp_path: Path, spm_model: Path, value: float, dtype: Any) -> None:
    weights = random_weights(MODEL)
    weights["model.layers.0.mlp.up_proj.weight"][-1, -1] = value
    if dtype is np.uint16:
        weights = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in weights.items()}
    folder = write_hf_folder(tmp_path / "hf", MODEL, {name: array.astype(dtype) for name, array in weights.items()})
    shutil.copy(spm_model, folder)
    with pytest.raises(CorruptSource, match=r"model\.safetensors: model\.layers\.0\.mlp\.up_proj\.weight holds NaN"):
        write_gguf(folder, tmp_path / "out.gguf")


def test_values_beyond_f16_are_refused(tmp_path: Path, spm_model: Path) -> None:
    weights = random_weights(MODEL)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = 70000
    folder = write_hf_folder(tmp_path / "hf", MODEL, weights)
    shutil.copy(spm_model, folder)
    with pytest.raises(UnsupportedModel, match=r"up_proj\.weight.*BF16"):
        write_gguf(folder, tmp_path / "out.gguf", DType.F16)


def test_integers_are_refused(folder: Path) -> None:
    write_safetensors(folder / SHARD, {"model.layers.0.mlp.up_proj.qweight": np.zeros((4, 4), np.int32)})
    with pytest.raises(UnsupportedModel, match="qweight is stored as I32"):
        open_checkpoint(folder)


def test_unknown_tensors_are_refused(tmp_path: Path, spm_model: Path) -> None:
    weights = random_weights(MODEL) | {"model.layers.0.mlp.gate.weight": np.zeros((4, 4), np.float32)}
    folder = write_hf_folder(tmp_path / "hf", MODEL, weights)
    shutil.copy(spm_model, folder)
    with pytest.raises(UnsupportedModel, match=r"mlp\.gate\.weight is not a tensor of a Llama"):
        open_checkpoint(folder)


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    shutil.copy(folder / "model-00001-of-00002.safetensors", folder / SHARD)
    with pytest.raises(CorruptSource, match="is also in"):
        open_checkpoint(folder)


def test_an_index_that_leaves_its_folder_is_refused(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret.safetensors"}}))
    with pytest.raises(CorruptSource, match="outside the folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("offsets", [[0, 15], [4, 20], [0, 32]])
def test_safetensors_headers_that_lie_are_refused(tmp_path: Path, folder: Path, offsets: list[int]) -> None:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": offsets}}).encode()
    (folder / SHARD).write_bytes(struct.pack("<Q", len(header)) + header + bytes(16))
    with pytest.raises(CorruptSource, match=SHARD):
        open_checkpoint(folder)


class _Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self._proof}",)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    proof, path = tmp_path / "proof", tmp_path / "pytorch_model.bin"
    write_torch_zip(path, pickle.dumps({"model.norm.weight": _Hostile(proof)}), {})
    with pytest.raises(CorruptSource, match=r"pytorch_model\.bin: refused.*system"):
        read_torch_file(path)
    assert not proof.exists()


@pytest.mark.parametrize(
    "raw",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"ctorch.serialization\nload\n(S'x'\ntR.",
        b"ctorch\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        b"ccollections\nOrderedDict\n(S'x'\ntR.",
        b"garbage",
        b"",
    ],
)
def test_pickles_that_ask_for_more_than_tensors_are_refused(tmp_path: Path, raw: bytes) -> None:
    write_torch_zip(tmp_path / "model.bin", raw, {})
    with pytest.raises(CorruptSource, match=r"model\.bin"):
        read_torch_file(tmp_path / "model.bin")


def test_a_storage_that_is_too_small_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_torch_file(path, {"a": np.zeros((4, 4), np.float16)})
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("archive/data.pkl")
    for data in (bytes(16), bytes(64)):
        write_torch_zip(path, pickled, {"0": data})
        with pytest.raises(CorruptSource, match="wrong size"):
            read_torch_file(path)
    write_torch_zip(path, pickled, {})
    with pytest.raises(CorruptSource, match="is missing"):
        read_torch_file(path)


def test_a_pytorch_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_torch_file(path, {"a": np.zeros((400, 4), np.float16)})
    os.truncate(path, 1000)
    with pytest.raises(CorruptSource, match="cut short"):
        read_torch_file(path)


def test_a_broken_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    write_torch_file(path, {"a": np.zeros((4, 4), np.float16)})
    raw = bytearray(path.read_bytes())
    at = raw.index(b"torch")
    raw[at : at + 5] = b"xorch"
    path.write_bytes(raw)
    with pytest.raises(CorruptSource, match=r"model\.bin: the zip is broken"):
        read_torch_file(path)


def test_integer_tensors_of_pytorch_are_refused(tmp_path: Path) -> None:
    write_torch_file(tmp_path / "model.bin", {"a.qweight": np.zeros((4, 4), np.int32)})
    with pytest.raises(UnsupportedModel, match=r"a\.qweight is a IntStorage"):
        read_torch_file(tmp_path / "model.bin")
