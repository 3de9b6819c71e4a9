"""A GPU, as far as the placement of a model depends on it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A GPU with `total` bytes of memory, of which `free` bytes were free when it was found."""

    name: str
    description: str
    free: int
    total: int
