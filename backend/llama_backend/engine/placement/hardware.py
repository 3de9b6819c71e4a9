"""The processors and the memory that this process may use: those of the host, within the limits of control groups."""

from __future__ import annotations

import os
from pathlib import Path

from llama_backend.engine.placement.cgroup import cpu_limit, memory_left

CPUS = Path("/sys/devices/system/cpu")
MEMORY = Path("/proc/meminfo")
TIMES = Path("/proc/stat")
_MANY = 4
"""Above this many processors only one hardware thread of each core is used."""
_IDLE_COLUMNS = slice(3, 5)
"""The columns of /proc/stat with the idle time, and the idle time while waiting for I/O."""
_UNKNOWN_MEMORY = 4 << 30
"""Bytes that are assumed where the system does not say how much memory is free."""
_LEAST_TICKS = 10
"""Ticks of 10 ms between two measurements; fewer say too little."""


def default_threads() -> int:
    """How many threads compute: one for each usable processor, or one for each core if there are many."""
    allowed = _allowed()
    cores = {_core(cpu) for cpu in allowed}
    count = len(allowed) if len(allowed) <= _MANY else max(len(cores), _MANY)
    limit = cpu_limit()
    return max(1, min(count, int(limit) if limit else count))


def available_memory() -> int:
    """Bytes that can be taken without swapping."""
    free, left = _free_memory(), memory_left()
    return free if left is None else min(free, left)


class IdleProcessors:
    """Measures how many of the processors that this process may use were idle since the last call."""

    def __init__(self) -> None:
        self._last = _times()

    def __call__(self) -> float | None:
        """The idle processors; None where the system does not say, or where too little time has passed."""
        last, self._last = self._last, _times()
        spans = [
            (idle - last[cpu][0], total - last[cpu][1]) for cpu, (idle, total) in self._last.items() if cpu in last
        ]
        if not spans or min(total for _, total in spans) < _LEAST_TICKS:
            return None
        return sum(idle / total for idle, total in spans)


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(cpu: int) -> str:
    try:
        return (CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _times() -> dict[int, tuple[int, int]]:
    """For each processor the ticks that it was idle, and all its ticks."""
    names = {f"cpu{cpu}": cpu for cpu in _allowed()}
    try:
        rows = [line.split() for line in TIMES.read_text().splitlines() if line.startswith("cpu")]
        counts = {names[name]: list(map(int, ticks)) for name, *ticks in rows if name in names}
    except (OSError, ValueError):
        return {}
    return {cpu: (sum(ticks[_IDLE_COLUMNS]), sum(ticks[:8])) for cpu, ticks in counts.items()}


def _free_memory() -> int:
    try:
        lines = MEMORY.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return _UNKNOWN_MEMORY
