"""Importance matrices, as llama.cpp's `llama-imatrix` writes them: how much each input column matters."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from llama_convert.errors import CorruptSource, SourceNotFound, UnsupportedModel
from llama_convert.gguf.reader import read_gguf
from llama_convert.gguf.types import MAGIC

Importance = dict[str, npt.NDArray[np.float32]]


def read_imatrix(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> Importance:
    """The mean square of each input column of each tensor, for a model whose tensors have these `shapes`.

    Raises:
        SourceNotFound: there is no such file.
        CorruptSource: it is no importance matrix, or cut short.
        UnsupportedModel: it was made with another model.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise SourceNotFound(f"{path}: {error.strerror}") from error
    try:
        found = _from_gguf(path) if magic == MAGIC else _from_legacy(path.read_bytes())
    except (struct.error, ValueError, KeyError) as error:
        raise CorruptSource(f"{path}: no importance matrix, or cut short ({error})") from error
    _check(path, found, shapes)
    return found


def _from_gguf(path: Path) -> Importance:
    file = read_gguf(path)
    found: Importance = {}
    for name in file.tensors:
        if name.endswith(".in_sum2"):
            tensor = name.removesuffix(".in_sum2")
            sums = file.data(name).view(np.float32)
            count = float(file.data(f"{tensor}.counts").view(np.float32).sum())
            found[tensor] = (sums / max(count, 1.0)).astype(np.float32)
    return found


def _from_legacy(raw: bytes) -> Importance:
    """The format before GGUF: the number of entries, then name, number of calls and sums of each."""
    found: Importance = {}
    (entries,), offset = struct.unpack_from("<i", raw), 4
    for _ in range(entries):
        (length,) = struct.unpack_from("<i", raw, offset)
        name = raw[offset + 4 : offset + 4 + length].decode("utf-8")
        offset += 4 + length
        calls, count = struct.unpack_from("<2i", raw, offset)
        sums = np.frombuffer(raw, "<f4", count, offset + 8)
        offset += 8 + 4 * count
        found[name] = (sums / max(calls, 1)).astype(np.float32)
    return found


def _check(path: Path, importance: Importance, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if not importance:
        raise CorruptSource(f"{path}: holds no importance of any tensor")
    for name, values in importance.items():
        if name not in shapes or shapes[name][-1] != values.size:
            raise UnsupportedModel(f"{path}: was made with another model ({name} with {values.size} columns)")
        if not np.isfinite(values).all():
            raise CorruptSource(f"{path}: {name} holds NaN or infinity")
