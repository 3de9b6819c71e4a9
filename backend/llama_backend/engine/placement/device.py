"""A GPU, as far as it matters for where a model is put."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A device with memory of `total` bytes, of which `free` were free."""

    name: str
    description: str
    free: int
    total: int
