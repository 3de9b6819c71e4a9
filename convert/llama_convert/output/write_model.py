"""Writes a checkpoint as one GGUF file: first the header, then the tensors in its order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from llama_convert.checkpoint.tensor import DType
from llama_convert.gguf.tensor_types import TensorType
from llama_convert.gguf.values import Metadata
from llama_convert.gguf.writer import GGUFWriter, TensorInfo
from llama_convert.llama_checkpoint import Checkpoint
from llama_convert.model.llama_config import LlamaConfig
from llama_convert.model.metadata import general_metadata, llama_metadata
from llama_convert.output.tensor_copier import TensorCopier, stored_dtype
from llama_convert.progress import Progress

FILE_TYPES = {DType.F32: 0, DType.F16: 1, DType.BF16: 32}
TYPES = {DType.F32: TensorType.F32, DType.F16: TensorType.F16, DType.BF16: TensorType.BF16}
_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Layout:
    """What the file will hold: its metadata, its tensors in order, and the type of the matrices."""

    metadata: Metadata
    tensors: list[TensorInfo]
    dtype: DType


def plan_layout(checkpoint: Checkpoint, outtype: DType | None = None) -> Layout:
    """The layout of `checkpoint` as GGUF; `outtype` None keeps the type that most of the weights have."""
    dtype = outtype or checkpoint.dtype
    pairs = [(item.spec, TYPES[stored_dtype(item, dtype)]) for item in checkpoint.tensors]
    tensors = [TensorInfo(spec.name, spec.shape, kind) for spec, kind in pairs]
    extra = {**checkpoint.vocabulary.metadata(), **checkpoint.template}
    return layout_of(checkpoint.name, checkpoint.folder, checkpoint.config, tensors, dtype, extra)


def layout_of(
    name: str, folder: Path, config: LlamaConfig, tensors: list[TensorInfo], dtype: DType, extra: Metadata
) -> Layout:
    """The layout of a model with these tensors; `folder` has its card, `extra` is its tokenizer's metadata."""
    parameters = sum(tensor.elements for tensor in tensors)
    factors = config.rope.factors(config.head_dim)
    if factors is not None:
        tensors = [TensorInfo(_FACTORS, factors.shape, TensorType.F32), *tensors]
    metadata = {
        **general_metadata(name, folder, parameters),
        **llama_metadata(config, FILE_TYPES[dtype]),
        **extra,
    }
    return Layout(metadata, tensors, dtype)


def write_model(checkpoint: Checkpoint, layout: Layout, path: Path, progress: Progress) -> None:
    """Writes `checkpoint`, which `layout` was planned for, to `path`.

    Raises CorruptSource where a tensor holds NaN or infinity, or its file ends early, and UnsupportedModel where a
    value does not fit into F16.
    """
    progress.start(f"write {layout.dtype.name}", sum(tensor.nbytes for tensor in layout.tensors))
    factors = checkpoint.config.rope.factors(checkpoint.config.head_dim)
    with GGUFWriter(path, layout.metadata, layout.tensors) as writer:
        if factors is not None:
            writer.begin(_FACTORS)
            writer.write(factors.data)
            writer.end()
        with TensorCopier(writer, layout.dtype, checkpoint.config.head_dim, progress) as copier:
            for tensor in checkpoint.tensors:
                copier.copy(tensor)
        writer.finish()
    progress.finish()
