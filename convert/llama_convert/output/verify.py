"""Checks of a file that was written: it loads, it computes, and it holds what the checkpoint held."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from llama_convert.checkpoint.casting import cast
from llama_convert.checkpoint.tensor import row_shape
from llama_convert.errors import CheckFailed
from llama_convert.gguf.reader import read_gguf
from llama_convert.llama_checkpoint import Checkpoint
from llama_convert.model.permute import permute_rows
from llama_convert.output.tensor_copier import CHUNK, stored_dtype
from llama_convert.output.write_model import Layout
from llama_convert.progress import Progress
from llama_convert.worker.child_process import run_worker
from llama_convert.worker.messages import Checked, CheckTask


def check_model(path: Path, threads: int, *, full: bool, progress: Progress) -> list[int]:
    """Loads `path` with llama.cpp and decodes eight tokens, whose logits must be finite; returns the tokens.

    Raises CorruptSource where the header is broken, and CheckFailed where llama.cpp does not load the file, or computes
    nonsense.
    """
    if not read_gguf(path).tensors:
        raise CheckFailed(f"{path}: holds no tensors")
    progress.start("check", 0)
    result = run_worker("check", progress, CheckTask(str(path), threads, full), Checked)
    progress.finish()
    return result.tokens


def compare_tensors(checkpoint: Checkpoint, layout: Layout, path: Path, progress: Progress) -> None:
    """Reads every tensor of the file at `path` back, and compares it with the checkpoint's.

    Raises CheckFailed where a byte differs; the message names the tensor.
    """
    file = read_gguf(path)
    progress.start("verify", sum(tensor.nbytes for tensor in layout.tensors))
    done, head_dim = 0, checkpoint.config.head_dim
    for tensor in checkpoint.tensors:
        dtype, written = tensor.source.dtype, file.data(tensor.spec.name)
        rows, columns = row_shape(tensor.spec.shape)
        target = stored_dtype(tensor, layout.dtype)
        step = max(1, CHUNK // (columns * dtype.itemsize * head_dim)) * head_dim
        for start in range(0, rows, step):
            chunk = np.empty((min(step, rows - start), columns), dtype.raw)
            tensor.source.read_rows(start, chunk)
            if tensor.permuted:
                permuted = np.empty_like(chunk)
                permute_rows(chunk, head_dim, permuted)
                chunk = permuted
            wanted = cast(chunk, dtype, target).reshape(-1).view(np.uint8)
            begin = start * columns * target.itemsize
            if not np.array_equal(written[begin : begin + wanted.size], wanted):
                raise CheckFailed(f"{path}: {tensor.spec.name} differs from the source")
            done += wanted.size
            progress.advance(done)
    progress.finish()
