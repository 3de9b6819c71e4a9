"""Which tensor of a checkpoint is which of the model: every one must have the expected name and shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama_convert.checkpoint.tensor import SourceTensor, row_shape
from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.model.llama_config import LlamaConfig
from llama_convert.model.tensor_specs import TensorSpec, bias_of, expected_tensors

_COMPARED = 4 << 20
"""Bytes of two matrices that are compared at a time."""


@dataclass(frozen=True, slots=True)
class ModelTensor:
    """A tensor of the model; `permuted` says that its rows are in Hugging Face's order."""

    spec: TensorSpec
    source: SourceTensor
    permuted: bool


def model_tensors(
    config: LlamaConfig, tensors: dict[str, SourceTensor], folder: Path, *, meta: bool
) -> tuple[list[ModelTensor], list[str]]:
    """The model's tensors in the order in which they are written; every source tensor must be one of them."""
    left = dict(tensors)
    found: list[ModelTensor] = []
    warnings = _drop_tied(config, left)
    for spec in _with_biases(config):
        name = spec.meta if meta else spec.hf
        source = left.pop(name, None)
        if source is not None:
            _check_shape(spec, source)
            found.append(ModelTensor(spec, source, bool(spec.heads) and not meta))
        elif not _optional(spec, config):
            raise CorruptSource(f"{folder}: the weights do not hold {name}")
    if left:
        name, origin = min(left), left[min(left)].origin
        raise UnsupportedModel(f"{origin}: {name} is not a tensor of a Llama ({len(left)} such tensors in all)")
    return found, warnings


def _with_biases(config: LlamaConfig) -> Iterator[TensorSpec]:
    for spec in expected_tensors(config):
        yield spec
        bias = bias_of(spec)
        if bias is not None:
            yield bias


def _optional(spec: TensorSpec, config: LlamaConfig) -> bool:
    return spec.name.endswith(".bias") or (spec.name == "output.weight" and config.tied_embeddings)


def _check_shape(spec: TensorSpec, source: SourceTensor) -> None:
    if source.shape != spec.shape:
        wanted, have = list(spec.shape), list(source.shape)
        raise CorruptSource(f"{source.origin}: {source.name} has shape {have}, but the configuration says {wanted}")


def _drop_tied(config: LlamaConfig, tensors: dict[str, SourceTensor]) -> list[str]:
    """Removes an output matrix that repeats the tied embeddings; one that differs is kept, with a warning."""
    head, embedding = tensors.get("lm_head.weight"), tensors.get("model.embed_tokens.weight")
    if not config.tied_embeddings or head is None or embedding is None:
        return []
    if _equal(head, embedding):
        del tensors["lm_head.weight"]
        return []
    return ["the configuration ties the embeddings, but lm_head.weight differs from them; it is kept"]


def _equal(first: SourceTensor, second: SourceTensor) -> bool:
    if first.shape != second.shape or first.dtype is not second.dtype:
        return False
    rows, columns = row_shape(first.shape)
    step = max(1, _COMPARED // max(1, columns * first.dtype.itemsize))
    for start in range(0, rows, step):
        count = min(step, rows - start)
        pair = np.empty((2, count, columns), first.dtype.bits)
        first.read_rows(start, pair[0])
        second.read_rows(start, pair[1])
        if not np.array_equal(pair[0], pair[1]):
            return False
    return True
