"""What this process may use: processors and memory, by the cgroup's limits and not the host's size."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_MANY = 4
"""Above this many processors only one hardware thread of each core is used."""


def default_threads() -> int:
    """Threads for computing: the processors this process may use, without second hardware threads."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core(cpu) for cpu in allowed}
    count = len(allowed) if len(allowed) <= _MANY else max(len(cores), _MANY)
    quota = _cpu_quota()
    return max(1, min(count, int(quota) if quota else count))


def available_memory() -> int:
    """Bytes that can be taken without swapping."""
    free = _meminfo("MemAvailable")
    limit, used = _number("memory.max"), _number("memory.current")
    if limit is not None and used is not None:
        free = min(free, max(limit - used + _reclaimable(), 0))
    return free


def _core(cpu: int) -> str:
    try:
        return (_CPUS / f"cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _cpu_quota() -> float | None:
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _number(name: str) -> int | None:
    try:
        return int((_CGROUP / name).read_text())
    except (OSError, ValueError):
        return None


def _reclaimable() -> int:
    """Bytes of files in the page cache that nobody used for a while; they count as the cgroup's memory."""
    try:
        lines = (_CGROUP / "memory.stat").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    except (OSError, StopIteration, ValueError):
        return 0


def _meminfo(key: str) -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    except (OSError, StopIteration, ValueError):
        return 4 * 1024**3
