"""Writes a checkpoint as one GGUF file, a few megabytes at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from llama_convert.checkpoint.casting import all_finite, cast
from llama_convert.checkpoint.tensor import DType, Rows, row_shape
from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.gguf.types import TensorType
from llama_convert.gguf.values import Metadata
from llama_convert.gguf.writer import GGUFWriter, TensorInfo
from llama_convert.model.config import LlamaConfig
from llama_convert.model.metadata import general_metadata, llama_metadata
from llama_convert.model.permute import permute_rows
from llama_convert.progress import Progress
from llama_convert.source import Checkpoint, ModelTensor

CHUNK: Final = 4 << 20
FILE_TYPES: Final = {DType.F32: 0, DType.F16: 1, DType.BF16: 32}
TYPES: Final = {DType.F32: TensorType.F32, DType.F16: TensorType.F16, DType.BF16: TensorType.BF16}
_FACTORS: Final = "rope_freqs.weight"


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


def write_model(checkpoint: Checkpoint, path: Path, outtype: DType | None, progress: Progress) -> Layout:
    """Write `checkpoint` to `path`.

    Raises:
        CorruptSource: a tensor holds NaN or infinity, or its file ends early.
        UnsupportedModel: a value does not fit into F16.
    """
    layout = plan_layout(checkpoint, outtype)
    progress.start(f"write {layout.dtype.name}", sum(tensor.nbytes for tensor in layout.tensors))
    factors = checkpoint.config.rope.factors(checkpoint.config.head_dim)
    with GGUFWriter(path, layout.metadata, layout.tensors) as writer:
        if factors is not None:
            writer.begin(_FACTORS)
            writer.write(factors.data)
            writer.end()
        copier = _Copier(writer, layout.dtype, checkpoint.config.head_dim, progress)
        for tensor in checkpoint.tensors:
            copier.copy(tensor)
        writer.finish()
    progress.finish()
    return layout


def stored_dtype(tensor: ModelTensor, dtype: DType) -> DType:
    """Vectors are always F32: llama.cpp computes with nothing else there."""
    return dtype if len(tensor.spec.shape) > 1 else DType.F32


class _Copier:
    """Carries tensors from their files to the writer, with two buffers that are used again and again."""

    def __init__(self, writer: GGUFWriter, dtype: DType, head_dim: int, progress: Progress) -> None:
        self._writer = writer
        self._dtype = dtype
        self._head_dim = head_dim
        self._progress = progress
        self._buffers = [np.empty(0, np.uint8), np.empty(0, np.uint8)]
        self._done = 0

    def copy(self, tensor: ModelTensor) -> None:
        """Write one tensor: read, permute, check and cast some rows at a time."""
        rows, columns = row_shape(tensor.spec.shape)
        step = self._step(tensor, columns)
        self._writer.begin(tensor.spec.name)
        for start in range(0, rows, step):
            shape = (min(step, rows - start), *tensor.spec.shape[1:])
            chunk = self._read(tensor, start, shape)
            data = np.ascontiguousarray(self._cast(tensor, chunk)).data.cast("B")
            self._writer.write(data, self._twin(tensor, start))
            self._done += data.nbytes
            self._progress.advance(self._done)
        self._writer.end()

    def _twin(self, tensor: ModelTensor, start: int) -> tuple[Path, int] | None:
        """Where the bytes to write stand already, if they are neither moved nor cast."""
        changed = tensor.permuted or tensor.source.dtype is not stored_dtype(tensor, self._dtype)
        return None if changed else tensor.source.place(start)

    def _step(self, tensor: ModelTensor, columns: int) -> int:
        """Rows of one chunk; whole heads where rows are permuted."""
        unit = self._head_dim if tensor.permuted else 1
        return max(1, CHUNK // (columns * tensor.source.dtype.itemsize * unit)) * unit

    def _read(self, tensor: ModelTensor, start: int, shape: tuple[int, ...]) -> Rows:
        dtype = tensor.source.dtype
        rows = self._buffer(0, shape, dtype)
        tensor.source.read_rows(start, rows)
        if not all_finite(rows, dtype):
            raise CorruptSource(f"{tensor.source.origin}: {tensor.source.name} holds NaN or infinity")
        if not tensor.permuted:
            return rows
        out = self._buffer(1, shape, dtype)
        permute_rows(rows, self._head_dim, out)
        return out

    def _buffer(self, index: int, shape: tuple[int, ...], dtype: DType) -> Rows:
        size = int(np.prod(shape)) * dtype.itemsize
        if len(self._buffers[index]) < size:
            self._buffers[index] = np.empty(size, np.uint8)
        return self._buffers[index][:size].view(dtype.raw).reshape(shape)

    def _cast(self, tensor: ModelTensor, rows: Rows) -> Rows:
        try:
            return cast(rows, tensor.source.dtype, stored_dtype(tensor, self._dtype))
        except OverflowError:
            origin, name = tensor.source.origin, tensor.source.name
            raise UnsupportedModel(f"{origin}: {name} holds values beyond the range of F16; write BF16") from None
