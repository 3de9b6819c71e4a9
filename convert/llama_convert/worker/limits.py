"""Limits for a process in which llama.cpp reads untrusted weights."""

from __future__ import annotations

import resource
from pathlib import Path

_GIB = 1 << 30
_SECONDS = 600
_SECONDS_PER_GIB = 120
"""Many times what loading a model and decoding eight tokens take on two slow cores."""
_MEMORY = 8 * _GIB
"""In addition to twice the file: llama.cpp may keep a second copy of all tensors in a layout for the processor."""


def limits_for(size: int) -> tuple[int, int]:
    """Seconds of processor time and bytes of data for a model file of `size` bytes."""
    return _SECONDS + _SECONDS_PER_GIB * size // _GIB, _MEMORY + 2 * size


def limit(seconds: int, memory: int) -> None:
    """Limits this process: beyond the seconds SIGXCPU ends it, beyond the memory allocations fail."""
    # With equal limits the signal would be SIGKILL, which gives no reason.
    _lower(resource.RLIMIT_CPU, seconds, seconds + 1)
    _lower(resource.RLIMIT_DATA, memory, memory)


def _lower(kind: int, soft: int, hard: int) -> None:
    """Sets a limit, never above the one that is already set."""
    allowed = resource.getrlimit(kind)[1]
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(kind, (soft, hard))


def limit_to_file(path: Path) -> None:
    """Limits this process to what a model file of this size needs."""
    limit(*limits_for(path.stat().st_size))
