"""A tensor of a checkpoint: its name, shape and type are known, its rows are read when they are needed."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from llama_convert.errors import CorruptSource
from llama_convert.untrusted import open_regular

Rows = npt.NDArray[Any]
UNUSED = ("rotary_emb.inv_freq", ".attention.bias", ".masked_bias")
"""Endings of the names of tensors that a model does not need: tables of rope, and masks."""


class DType(Enum):
    """The element types of a checkpoint that we read, by their safetensors names."""

    F32 = "F32"
    F16 = "F16"
    BF16 = "BF16"

    @property
    def raw(self) -> np.dtype[Any]:
        """The numpy type that holds the elements' bits; numpy has no bfloat16, so that is two bytes."""
        return np.dtype({"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.value])

    @property
    def bits(self) -> np.dtype[Any]:
        """The unsigned integers of the same size."""
        return np.dtype(f"<u{self.itemsize}")

    @property
    def itemsize(self) -> int:
        return self.raw.itemsize


class SourceTensor(Protocol):
    """What the converter needs of a tensor, wherever it is stored."""

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> DType: ...

    @property
    def origin(self) -> Path:
        """The file to name where the tensor turns out to be broken."""

    def read_rows(self, start: int, out: Rows) -> None:
        """Fills `out`, C-contiguous and of the dtype's raw type, with the rows from `start` on."""

    def location(self, start: int) -> tuple[Path, int] | None:
        """The file and the offset at which the rows from `start` on are stored unchanged and in order, or None."""


def row_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """A shape as rows and columns; a vector is a column."""
    rows = shape[0] if shape else 1
    columns = 1
    for size in shape[1:]:
        columns *= size
    return rows, columns


def read_into(path: Path, offset: int, out: Rows) -> None:
    """Fills `out` with the bytes of a file from `offset` on."""
    view = out.data.cast("B")
    with open_regular(path) as file:
        file.seek(offset)
        while view:
            count = file.readinto(view)
            if not count:
                raise CorruptSource(f"{path}: the file ended while a tensor was read")
            view = view[count:]


class StoredTensor:
    """A tensor whose elements are stored one after the other in a file, row by row."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: DType, origin: Path, offset: int) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype
        self.origin = origin
        self._offset = offset

    def read_rows(self, start: int, out: Rows) -> None:
        read_into(*self.location(start), out)

    def location(self, start: int) -> tuple[Path, int]:
        _, columns = row_shape(self.shape)
        return self.origin, self._offset + start * columns * self.dtype.itemsize
