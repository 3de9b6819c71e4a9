"""A converted model computes what its checkpoint computes, and a wrong permutation is noticed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llama_convert.checkpoint.tensor import DType
from llama_convert.model.permute import permute_rows
from llama_convert.model.rope import Rope
from tests.support.convert import native
from tests.support.convert.forward import logits, nmse
from tests.support.convert.layouts import TinyLlama, random_weights, write_hf_folder
from tests.support.convert.single_file import write_gguf

TOKENS = [int(token) for token in np.random.default_rng(5).integers(3, 500, 64)]
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.fixture
def convert(tmp_path: Path, spm_model: Path) -> Callable[..., Path]:
    """Writes a model as an HF folder and converts it."""

    def run(model: TinyLlama, weights: dict[str, Any], outtype: DType | None = None, **config: Any) -> Path:
        folder = write_hf_folder(tmp_path / "hf", model, weights, **config)
        shutil.copy(spm_model, folder)
        write_gguf(folder, tmp_path / "out.gguf", outtype)
        return tmp_path / "out.gguf"

    return run


@pytest.mark.parametrize(
    ("outtype", "most"), [(None, 1e-10), (DType.F16, 1e-5), (DType.BF16, 1e-3)], ids=["f32", "f16", "bf16"]
)
def test_converted_logits_equal_the_float64_forward_pass(
    convert: Callable[..., Path], outtype: DType | None, most: float
) -> None:
    model = TinyLlama()
    weights = random_weights(model)
    found = native.all_logits(convert(model, weights, outtype), TOKENS)
    assert nmse(found, logits(model, weights, TOKENS)) <= most


@pytest.mark.parametrize(
    "model",
    [
        TinyLlama(tied=True),
        TinyLlama(biases=True),
        TinyLlama(heads=9, kv_heads=3, width=288),
        TinyLlama(heads=4, kv_heads=4, head_dim=64),
    ],
    ids=["tied", "biases", "heads-9-3", "no-gqa"],
)
def test_variants_of_the_architecture_compute_alike(convert: Callable[..., Path], model: TinyLlama) -> None:
    weights = random_weights(model)
    found = native.all_logits(convert(model, weights), TOKENS)
    assert nmse(found, logits(model, weights, TOKENS)) <= 1e-10


def test_linear_rope_scaling_stretches_the_positions(convert: Callable[..., Path]) -> None:
    model = TinyLlama(scaling={"type": "linear", "factor": 4.0})
    weights = random_weights(model)
    found = native.all_logits(convert(model, weights), TOKENS)
    assert nmse(found, logits(model, weights, TOKENS, scale=4.0)) <= 1e-10
    assert nmse(found, logits(model, weights, TOKENS)) > 1e-3


def test_llama3_rope_scaling_becomes_factors(convert: Callable[..., Path]) -> None:
    model = TinyLlama(scaling=LLAMA3)
    weights = random_weights(model)
    found = native.all_logits(convert(model, weights), TOKENS)
    factors = Rope(kind="llama3", scaling=LLAMA3).factors(model.head_dim)
    assert nmse(found, logits(model, weights, TOKENS, factors=factors)) <= 1e-10
    assert nmse(found, logits(model, weights, TOKENS)) > 1e-3


@pytest.mark.parametrize("wrong", ["nothing", "k as q"])
def test_a_wrong_permutation_is_far_outside_the_bound(
    convert: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """Not permuting, or permuting the keys by the wrong head count, must not go unnoticed."""
    model = TinyLlama()

    def permute(rows: Any, head_dim: int, out: Any) -> None:
        if wrong == "nothing":
            out[...] = rows
        elif len(rows) == model.kv_heads * head_dim:
            permute_rows(rows, head_dim * model.kv_heads // model.heads, out)
        else:
            permute_rows(rows, head_dim, out)

    monkeypatch.setattr("llama_convert.output.tensor_copier.permute_rows", permute)
    weights = random_weights(model)
    found = native.all_logits(convert(model, weights), TOKENS)
    assert nmse(found, logits(model, weights, TOKENS)) > 1e-2


def test_a_head_dimension_of_its_own_is_written(convert: Callable[..., Path]) -> None:
    model = replace(TinyLlama(), head_dim=64)
    weights = random_weights(model)
    found = native.all_logits(convert(model, weights, head_dim=64), TOKENS)
    assert nmse(found, logits(model, weights, TOKENS)) <= 1e-10
