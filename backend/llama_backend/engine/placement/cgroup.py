"""The limits of the control groups that this process is in, version 1 and 2.

Formats: https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
"""The groups that this process is in, a line for each hierarchy."""


def cpu_limit() -> float | None:
    """The processor time that this process may use, in processors; None means no limit."""
    quotas = [_quota_v2(folder) for folder in _folders("")] + [_quota_v1(folder) for folder in _folders("cpu")]
    return min((quota for quota in quotas if quota), default=None)


def memory_left() -> int | None:
    """Bytes that are left in the tightest group, including caches that the kernel can drop; None means no limit."""
    left = [_left(folder, "memory.max", "memory.current", "inactive_file") for folder in _folders("")]
    left += [
        _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        for folder in _folders("memory")
    ]
    return min((size for size in left if size is not None), default=None)


def _folders(controller: str) -> Iterator[Path]:
    """The folders of this process's group and of those above it; `controller` is empty for version 2.

    In a container the path may be the host's, although the container only sees its own group, as the root.
    """
    for line in _read(OWN).splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            root = ROOT / names if names else ROOT
            group = root / path.lstrip("/")
            while group != root and root in group.parents:
                yield group
                group = group.parent
            yield root


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _ratio(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """The quota in periods; None for `max`, -1 and anything that is not a number."""
    is_limit = quota.isdigit() and period.isdigit() and int(period) > 0
    return int(quota) / int(period) if is_limit else None


def _left(folder: Path, limit_name: str, used_name: str, reclaimable: str) -> int | None:
    limit, used = _read(folder / limit_name).strip(), _read(folder / used_name).strip()
    if not (limit.isdigit() and used.isdigit()):
        return None
    return max(int(limit) - int(used) + _statistic(folder, reclaimable), 0)


def _statistic(folder: Path, name: str) -> int:
    """A number of bytes in `memory.stat`, 0 where it is missing."""
    for line in _read(folder / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
