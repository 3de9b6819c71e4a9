"""What this process may use: processors and memory, within the limits of its container.

Formats: https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def core_count() -> int:
    """Threads to compute with: the processors that this process may use, at most as many as its CPU quota pays for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(int, _cpu_quotas())]))


def memory_bytes() -> int:
    """Bytes of memory of this machine, or the container's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *_memory_limits()])


def _cpu_quotas() -> Iterator[float]:
    """The quotas of the groups that have one, in processors."""
    for group in _groups():
        yield from _ratio(_read(group / "cpu.max").partition(" "))
    for group in _groups("cpu"):
        yield from _ratio((_read(group / "cpu.cfs_quota_us"), "", _read(group / "cpu.cfs_period_us")))


def _ratio(texts: tuple[str, str, str]) -> Iterator[float]:
    """The quota in periods; nothing for `max`, -1 and what is not a number."""
    quota, _, period = texts
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        yield int(quota) / int(period)


def _memory_limits() -> Iterator[int]:
    files = [group / "memory.max" for group in _groups()]
    files += [group / "memory.limit_in_bytes" for group in _groups("memory")]
    return (int(text) for text in map(_read, files) if text.isdecimal())


def _groups(controller: str = "") -> Iterator[Path]:
    """The folders of this process's group and of those above it; without a controller those of version 2.

    A container may see the path of the host here. Its own group is then the root that it sees.
    """
    for line in _read(OWN_CGROUPS).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            root = CGROUPS / names
            group = root / path.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if root in folder.parents)
            yield root


def _read(path: Path) -> str:
    """The text of a file; empty where it cannot be read."""
    try:
        return path.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
