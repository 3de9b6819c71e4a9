"""Copies tensors from a checkpoint to a GGUF file: some rows are read and checked while those before are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from llama_convert.checkpoint.casting import all_finite, cast
from llama_convert.checkpoint.tensor import DType, Rows, row_shape
from llama_convert.errors import CorruptSource, UnsupportedModel
from llama_convert.gguf.writer import GGUFWriter
from llama_convert.model.model_tensors import ModelTensor
from llama_convert.model.permute import permute_rows
from llama_convert.progress import Progress

CHUNK = 4 << 20
"""Bytes of rows that are read at a time."""
_AHEAD = 2
"""Writes that may wait while the next rows are read."""


def stored_dtype(tensor: ModelTensor, dtype: DType) -> DType:
    """Vectors are always F32: llama.cpp computes with nothing else there."""
    return dtype if len(tensor.spec.shape) > 1 else DType.F32


class TensorCopier:
    """Copies tensors, writing in a separate thread. The buffers are reused, so memory does not grow with the model."""

    def __init__(self, writer: GGUFWriter, dtype: DType, head_dim: int, progress: Progress) -> None:
        self._writer = writer
        self._dtype = dtype
        self._head_dim = head_dim
        self._progress = progress
        self._thread = ThreadPoolExecutor(1)
        self._jobs: deque[Future[None]] = deque()
        self._buffers = [np.empty(0, np.uint8) for _ in range(2 * (_AHEAD + 1))]
        self._turn = 0
        self._done = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._wait(0)
        finally:
            self._thread.shutdown(cancel_futures=True)

    def copy(self, tensor: ModelTensor) -> None:
        """Copies one tensor: reads, permutes, checks, casts and writes some rows at a time.

        Raises CorruptSource where it holds NaN or infinity, or its file ends early, and UnsupportedModel where a value
        does not fit into F16.
        """
        rows, columns = row_shape(tensor.spec.shape)
        step = self._step(tensor, columns)
        self._do(self._writer.begin, tensor.spec.name)
        for start in range(0, rows, step):
            shape = (min(step, rows - start), *tensor.spec.shape[1:])
            data = self._cast(tensor, self._read(tensor, start, shape)).data.cast("B")
            self._do(self._writer.write, data, self._identical_range(tensor, start))
            self._done += data.nbytes
            self._progress.advance(self._done)
        self._do(self._writer.end)

    def _do(self, step: Callable[..., None], *args: Any) -> None:
        """Queues a step for the writing thread; no more than `_AHEAD` steps wait."""
        self._wait(_AHEAD - 1)
        self._jobs.append(self._thread.submit(step, *args))

    def _wait(self, most: int) -> None:
        while len(self._jobs) > most:
            self._jobs.popleft().result()

    def _identical_range(self, tensor: ModelTensor, start: int) -> tuple[Path, int] | None:
        """Where the bytes to write are already stored, if they are neither permuted nor cast."""
        changed = tensor.permuted or tensor.source.dtype is not stored_dtype(tensor, self._dtype)
        return None if changed else tensor.source.location(start)

    def _step(self, tensor: ModelTensor, columns: int) -> int:
        """The number of rows in a chunk; whole heads where rows are permuted."""
        unit = self._head_dim if tensor.permuted else 1
        return max(1, CHUNK // (columns * tensor.source.dtype.itemsize * unit)) * unit

    def _read(self, tensor: ModelTensor, start: int, shape: tuple[int, ...]) -> Rows:
        dtype = tensor.source.dtype
        rows = self._buffer(shape, dtype)
        tensor.source.read_rows(start, rows)
        if not all_finite(rows, dtype):
            raise CorruptSource(f"{tensor.source.origin}: {tensor.source.name} holds NaN or infinity")
        out = self._buffer(shape, dtype)
        if not tensor.permuted:
            return rows
        permute_rows(rows, self._head_dim, out)
        return out

    def _buffer(self, shape: tuple[int, ...], dtype: DType) -> Rows:
        """The buffer that was used longest ago; each chunk takes two, so none is in use by a write that waits."""
        size = int(np.prod(shape)) * dtype.itemsize
        index = self._turn
        self._turn = (index + 1) % len(self._buffers)
        if len(self._buffers[index]) < size:
            self._buffers[index] = np.empty(size, np.uint8)
        return self._buffers[index][:size].view(dtype.raw).reshape(shape)

    def _cast(self, tensor: ModelTensor, rows: Rows) -> Rows:
        try:
            return np.ascontiguousarray(cast(rows, tensor.source.dtype, stored_dtype(tensor, self._dtype)))
        except OverflowError:
            origin, name = tensor.source.origin, tensor.source.name
            raise UnsupportedModel(f"{origin}: {name} holds values beyond the range of F16; write BF16") from None
