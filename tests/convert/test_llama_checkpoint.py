"""Every layout of the same weights becomes the same tensors, byte for byte."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_convert.checkpoint.meta_folder import read_checklist
from llama_convert.checkpoint.tensor import DType
from llama_convert.errors import CorruptSource, SourceNotFound
from llama_convert.files import sha256_of
from llama_convert.gguf.reader import read_gguf
from llama_convert.llama_checkpoint import SourceOptions, open_checkpoint
from llama_convert.model.permute import permute_rows
from llama_convert.progress import Silent
from tests.support.convert.layouts import (
    TinyLlama,
    interleave,
    random_weights,
    unpermute_rows,
    write_hf_folder,
    write_meta_folder,
    write_torch_file,
)
from tests.support.convert.single_file import write_gguf

MODEL = TinyLlama(kv_heads=8, inner=384)
Folder = Path


def converted(folder: Folder, outtype: DType | None = None) -> dict[str, str]:
    """The digest of each tensor's type, shape and bytes."""
    path = folder.parent / f"{folder.name}.gguf"
    write_gguf(folder, path, outtype, name="tiny")
    file = read_gguf(path)
    return {
        name: f"{tensor.info.kind} {tensor.info.shape} {hashlib.sha256(file.data(name).data).hexdigest()}"
        for name, tensor in file.tensors.items()
    }


@pytest.fixture
def weights() -> dict[str, Any]:
    return random_weights(MODEL, dtype=np.float16)


@pytest.fixture
def plain(tmp_path: Path, weights: dict[str, Any], spm_model: Path) -> dict[str, str]:
    """What one safetensors file of the weights becomes."""
    folder = write_hf_folder(tmp_path / "plain", MODEL, weights)
    shutil.copy(spm_model, folder)
    return converted(folder)


@pytest.mark.parametrize("shards", [1, 2, 8])
def test_meta_shards_become_the_same_tensors(
    tmp_path: Path, weights: dict[str, Any], spm_model: Path, plain: dict[str, str], shards: int
) -> None:
    folder = write_meta_folder(tmp_path / "meta" / "7b", MODEL, weights, shards)
    shutil.copy(spm_model, folder.parent)
    assert converted(folder) == plain


def test_meta_files_say_nothing_of_vocabulary_and_context(
    tmp_path: Path, weights: dict[str, Any], spm_model: Path
) -> None:
    folder = write_meta_folder(tmp_path / "meta", MODEL, weights, 2)
    shutil.copy(spm_model, folder)
    checkpoint = open_checkpoint(folder, SourceOptions(context=2048))
    assert (checkpoint.config.vocab_size, checkpoint.config.feed_forward_length) == (MODEL.vocab, MODEL.inner)
    assert checkpoint.config.context_length == 2048
    assert open_checkpoint(folder).config.context_length == 4096


def test_metas_checklist_is_believed(tmp_path: Path, weights: dict[str, Any], spm_model: Path) -> None:
    folder = write_meta_folder(tmp_path / "meta", MODEL, weights, 2)
    shutil.copy(spm_model, folder)
    sums = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.glob("*.pth")}
    checklist = folder / "checklist.chk"
    checklist.write_text("".join(f"{digest}  {name}\n" for name, digest in sums.items()))
    files = open_checkpoint(folder).files
    sha256_of(files, Silent(), read_checklist(folder))
    with (folder / "consolidated.01.pth").open("r+b") as file:
        file.seek(-5000, 2)
        file.write(b"x")
    with pytest.raises(CorruptSource, match=r"consolidated\.01\.pth: has the MD5"):
        sha256_of(files, Silent(), read_checklist(folder))


def test_a_missing_meta_shard_is_named(tmp_path: Path, weights: dict[str, Any]) -> None:
    folder = write_meta_folder(tmp_path / "meta", MODEL, weights, 2)
    (folder / "consolidated.00.pth").unlink()
    with pytest.raises(SourceNotFound, match=r"consolidated\.00\.pth"):
        open_checkpoint(folder)


def test_sharded_safetensors_become_the_same_tensors(
    tmp_path: Path, weights: dict[str, Any], spm_model: Path, plain: dict[str, str]
) -> None:
    folder = write_hf_folder(tmp_path / "sharded", MODEL, weights, shards=3)
    shutil.copy(spm_model, folder)
    assert converted(folder) == plain


def test_pytorch_files_become_the_same_tensors(
    tmp_path: Path, weights: dict[str, Any], spm_model: Path, plain: dict[str, str]
) -> None:
    folder = write_hf_folder(tmp_path / "bin", MODEL, weights)
    (folder / "model.safetensors").unlink()
    turned = frozenset({"model.layers.0.mlp.up_proj.weight", "model.layers.1.self_attn.q_proj.weight"})
    write_torch_file(folder / "pytorch_model.bin", weights, transposed=turned)
    shutil.copy(spm_model, folder)
    assert converted(folder) == plain


def test_safetensors_win_over_pytorch_files(
    tmp_path: Path, weights: dict[str, Any], spm_model: Path, plain: dict[str, str]
) -> None:
    folder = write_hf_folder(tmp_path / "both", MODEL, weights)
    (folder / "pytorch_model.bin").write_bytes(b"not read")
    (folder / "consolidated.safetensors").write_bytes(b"not read")
    shutil.copy(spm_model, folder)
    assert converted(folder) == plain


def test_bfloat16_is_copied_and_widens_exactly(tmp_path: Path, spm_model: Path) -> None:
    weights = {name: (array.view(np.uint32) >> 16).astype(np.uint16) for name, array in random_weights(MODEL).items()}
    folder = write_hf_folder(tmp_path / "bf16", MODEL, weights)
    shutil.copy(spm_model, folder)
    write_gguf(folder, tmp_path / "bf16.gguf")
    file = read_gguf(tmp_path / "bf16.gguf")
    embedding, norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
    assert file.data("token_embd.weight").tobytes() == embedding.tobytes()
    assert file.data("output_norm.weight").tobytes() == (norm.astype(np.uint32) << 16).tobytes()
    assert file.get("general.file_type") == 32


@pytest.mark.parametrize(("head_dim", "heads"), [(4, 3), (64, 9), (128, 2)])
def test_permutation_is_the_one_that_is_defined_and_has_an_inverse(head_dim: int, heads: int) -> None:
    rows = np.random.default_rng(1).standard_normal((heads * head_dim, 5)).astype(np.float16)
    out = np.empty_like(rows)
    permute_rows(rows, head_dim, out)
    assert np.array_equal(out, interleave(rows, head_dim))
    assert np.array_equal(unpermute_rows(out, head_dim), rows)


def test_tied_embeddings_are_written_once(tmp_path: Path, spm_model: Path) -> None:
    model = TinyLlama(tied=True)
    weights = random_weights(model)
    folder = write_hf_folder(
        tmp_path / "tied", model, weights | {"lm_head.weight": weights["model.embed_tokens.weight"]}
    )
    shutil.copy(spm_model, folder)
    assert "output.weight" not in converted(folder)


def test_tied_embeddings_that_differ_are_kept_with_a_warning(tmp_path: Path, spm_model: Path) -> None:
    model = TinyLlama(tied=True)
    weights = random_weights(model)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 1
    folder = write_hf_folder(tmp_path / "tied", model, weights)
    shutil.copy(spm_model, folder)
    assert "lm_head.weight differs" in "".join(open_checkpoint(folder).warnings)
    assert "output.weight" in converted(folder)


def test_an_untied_model_without_an_output_is_refused(tmp_path: Path, weights: dict[str, Any], spm_model: Path) -> None:
    del weights["lm_head.weight"]
    folder = write_hf_folder(tmp_path / "hf", MODEL, weights)
    shutil.copy(spm_model, folder)
    with pytest.raises(CorruptSource, match=r"do not hold lm_head\.weight"):
        open_checkpoint(folder)
