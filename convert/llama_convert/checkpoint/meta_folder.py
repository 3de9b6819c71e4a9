"""Meta's own layout: `consolidated.*.pth`, each with its share of every tensor, and `params.json`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from llama_convert.checkpoint.tensor import DType, Rows, SourceTensor
from llama_convert.checkpoint.torch_file import read_torch_file
from llama_convert.errors import CorruptSource, SourceNotFound
from llama_convert.untrusted import read_text

_COLUMNS = ("tok_embeddings.weight", "attention.wo.weight", "feed_forward.w2.weight")


def shard_files(folder: Path) -> list[Path]:
    """The files `consolidated.00.pth` and so on, in order.

    Raises SourceNotFound where a number is skipped.
    """
    files = sorted(folder.glob("consolidated.*.pth"))
    names = [f"consolidated.{index:02d}.pth" for index in range(len(files))]
    missing = sorted(set(names) - {path.name for path in files})
    if missing:
        raise SourceNotFound(f"{folder}: {', '.join(missing)} is missing")
    return files


def read_checklist(folder: Path) -> dict[str, str]:
    """The MD5 of each file that `checklist.chk` lists; empty where there is none."""
    path = folder / "checklist.chk"
    lines = [line.split() for line in read_text(path).splitlines()] if path.is_file() else []
    return {line[1]: line[0].lower() for line in lines if len(line) == 2}


def read_meta_tensors(folder: Path) -> tuple[dict[str, SourceTensor], list[Path]]:
    """All tensors, each joined from its shares, and the files they are in."""
    files = shard_files(folder)
    shards = [read_torch_file(path) for path in files]
    for path, shard in zip(files, shards, strict=True):
        if shard.keys() != shards[0].keys():
            raise CorruptSource(f"{path}: holds other tensors than {files[0].name}")
    return {name: _join(name, [shard[name] for shard in shards]) for name in shards[0]}, files


def _join(name: str, parts: Sequence[SourceTensor]) -> SourceTensor:
    """The tensor that the shares make up.

    Each file repeats the vectors; most matrices are split by rows, those in `_COLUMNS` by columns.
    """
    if len(parts) == 1 or len(parts[0].shape) < 2:
        return parts[0]
    axis = 1 if name.endswith(_COLUMNS) else 0
    for part in parts:
        if not _fits(part, parts[0], axis):
            raise CorruptSource(f"{part.origin}: the share of {name} does not fit the one in {parts[0].origin.name}")
    return JoinedTensor(name, parts, axis)


def _fits(part: SourceTensor, first: SourceTensor, axis: int) -> bool:
    """Whether both are matrices of one type that can stand side by side along `axis`."""
    matrices = len(part.shape) == len(first.shape) == 2 and min(*part.shape, *first.shape) > 0
    return matrices and part.dtype is first.dtype and part.shape[1 - axis] == first.shape[1 - axis]


class JoinedTensor:
    """A matrix whose shares are laid side by side along `axis` as its rows are read."""

    def __init__(self, name: str, parts: Sequence[SourceTensor], axis: int) -> None:
        self.name = name
        self.axis = axis
        self.dtype: DType = parts[0].dtype
        self._parts = parts
        sizes = [part.shape[axis] for part in parts]
        self._ends = list(accumulate(sizes))
        other = parts[0].shape[1 - axis]
        self.shape: tuple[int, ...] = (self._ends[-1], other) if axis == 0 else (other, self._ends[-1])

    @property
    def origin(self) -> Path:
        return self._parts[0].origin

    def read_rows(self, start: int, out: Rows) -> None:
        if self.axis == 0:
            self._read_stacked(start, out)
        else:
            self._read_beside(start, out)

    def location(self, start: int) -> None:
        return None

    def _read_stacked(self, start: int, out: Rows) -> None:
        stop = start + len(out)
        for part, end in zip(self._parts, self._ends, strict=True):
            begin = end - part.shape[0]
            first, last = max(start, begin), min(stop, end)
            if first < last:
                part.read_rows(first - begin, out[first - start : last - start])

    def _read_beside(self, start: int, out: Rows) -> None:
        for part, end in zip(self._parts, self._ends, strict=True):
            width = part.shape[1]
            share = np.empty((len(out), width), out.dtype)
            part.read_rows(start, share)
            out[:, end - width : end] = share
