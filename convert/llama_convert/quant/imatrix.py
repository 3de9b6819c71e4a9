"""Importance matrices, as llama.cpp's `llama-imatrix` writes them: how much each input column matters."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llama_convert.errors import CorruptSource, SourceNotFound, UnsupportedModel
from llama_convert.gguf.reader import read_gguf
from llama_convert.gguf.tensor_types import MAGIC
from llama_convert.untrusted import excerpt, open_regular, read_regular

Floats = npt.NDArray[np.float32]
Importance = dict[str, Floats]
_MOST_BYTES = 256 << 20
_MOST_COUNTS = 1 << 20
"""Bytes of a tensor's counts of inputs; there is one count, or one for each expert."""


def read_imatrix(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Importance:
    """The mean square of each input column of each tensor, for a model whose tensors have these `shapes`.

    Raises SourceNotFound where there is no such file, CorruptSource where it is not an importance matrix or is cut
    short, and UnsupportedModel where it was made with another model.
    """
    try:
        with open_regular(path) as file:
            magic = file.read(4)
        sums = _from_gguf(path) if magic == MAGIC else _from_legacy(read_regular(path, _MOST_BYTES))
        found = {name: _mean(path, name, sum, shapes) for name, sum in sums}
    except OSError as error:
        raise SourceNotFound(f"{path}: {error.strerror}") from error
    except (struct.error, ValueError, KeyError) as error:
        raise CorruptSource(f"{path}: is not an importance matrix, or cut short ({error})") from error
    if not found:
        raise CorruptSource(f"{path}: holds no values for any tensor")
    return found


@dataclass(frozen=True, slots=True)
class _Sum:
    """The sums of the squares of a tensor's input columns over `count` inputs; still in the file."""

    squares: Floats
    count: float


def _from_gguf(path: Path) -> Iterator[tuple[str, _Sum]]:
    file = read_gguf(path)
    for name in file.tensors:
        if name.endswith(".in_sum2"):
            tensor = name.removesuffix(".in_sum2")
            counts = file.data(f"{tensor}.counts")[:_MOST_COUNTS].view(np.float32)
            yield tensor, _Sum(file.data(name).view(np.float32), float(counts.sum()))


def _from_legacy(raw: bytes) -> Iterator[tuple[str, _Sum]]:
    """The format before GGUF: the number of entries, then name, number of calls and sums of each."""
    (entries,), offset = struct.unpack_from("<i", raw), 4
    for _ in range(entries):
        (length,) = struct.unpack_from("<i", raw, offset)
        if length < 1:
            raise ValueError("a tensor without a name")
        name = raw[offset + 4 : offset + 4 + length].decode("utf-8")
        offset += 4 + length
        calls, count = struct.unpack_from("<2i", raw, offset)
        if count < 1:
            raise ValueError("a tensor without columns")
        yield name, _Sum(np.frombuffer(raw, "<f4", count, offset + 8), calls)
        offset += 8 + 4 * count


def _mean(path: Path, name: str, sum: _Sum, shapes: Mapping[str, tuple[int, ...]]) -> Floats:
    if name not in shapes or shapes[name][-1] != sum.squares.size:
        what = f"{excerpt(name)} with {sum.squares.size} columns"
        raise UnsupportedModel(f"{path}: was made with another model ({what})")
    with np.errstate(all="ignore"):
        values = (sum.squares / max(sum.count, 1.0)).astype(np.float32)
    if not np.isfinite(values).all():
        raise CorruptSource(f"{path}: {excerpt(name)} holds NaN or infinity")
    return values
