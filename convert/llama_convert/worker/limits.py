"""What a process may take that has llama.cpp read weights of strangers."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Final

_GIB: Final = 1 << 30
_SECONDS: Final = 600
_SECONDS_PER_GIB: Final = 120
"""Many times what loading a model and decoding eight tokens take on two slow cores."""
_MEMORY: Final = 8 * _GIB
"""Beside twice the file: llama.cpp may lay out all tensors anew for the processor."""


def limits_for(size: int) -> tuple[int, int]:
    """Seconds of processor time and bytes of data for a model file of `size` bytes."""
    return _SECONDS + _SECONDS_PER_GIB * size // _GIB, _MEMORY + 2 * size


def limit(seconds: int, memory: int) -> None:
    """Hold this process to that; SIGXCPU ends it, and memory beyond is not given."""
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)  # Where both are one, the signal is SIGKILL, which says nothing.
    _lower(resource.RLIMIT_DATA, memory, memory)


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, at most what is allowed already."""
    allowed = resource.getrlimit(kind)[1]
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(kind, (soft, hard))


def limit_to_file(path: Path) -> None:
    """Hold this process to what a model file of that size needs."""
    limit(*limits_for(path.stat().st_size))
