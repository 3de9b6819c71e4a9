"""Converts elements between the float types, and finds NaN and infinity."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llama_convert.checkpoint.tensor import DType, Rows

_INFINITY = {DType.F16: 0x7C00, DType.BF16: 0x7F80, DType.F32: 0x7F800000}
"""The bits of positive infinity. Apart from the sign, bits at or above this stand for infinity or NaN."""


def all_finite(rows: Rows, dtype: DType) -> bool:
    """Whether no element is NaN or infinite; one pass over the bits for each sign, without a copy."""
    bits = rows.view(dtype.bits)
    signed = rows.view(f"<i{dtype.itemsize}")
    infinity = _INFINITY[dtype]
    negative = infinity | 1 << (8 * dtype.itemsize - 1)
    return bool(signed.max(initial=0) < infinity and bits.max(initial=0) < negative)


def cast(rows: Rows, source: DType, target: DType) -> Rows:
    """The rows as `target`; the same array where the types are equal.

    Raises OverflowError where a value is too large for F16.
    """
    if source is target:
        return rows
    floats = widen(rows, source)
    if target is DType.F32:
        return floats
    return _to_bf16(floats) if target is DType.BF16 else _to_f16(floats)


def widen(rows: Rows, dtype: DType) -> npt.NDArray[np.float32]:
    """The rows as F32, exactly."""
    if dtype is not DType.BF16:
        return rows.astype(np.float32, copy=False)
    halves = np.zeros((*rows.shape, 2), np.uint16)
    halves[..., 1] = rows
    return halves.view(np.float32)[..., 0]


def _to_f16(floats: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    with np.errstate(over="ignore"):
        halves = floats.astype(np.float16)
    if not all_finite(halves, DType.F16):
        raise OverflowError
    return halves


def _to_bf16(floats: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Rounds finite values to nearest, ties to even."""
    bits = floats.view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)
