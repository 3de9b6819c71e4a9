"""Threads and memory of a conversion by the limits of control groups; nothing here looks at the real machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_convert import machine
from llama_convert.machine import core_count, memory_bytes

GIB = 1 << 30
Write = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A host of 8 processors and 8 GiB; writes the files of its control groups by their path."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 8 * GIB // 4096}.__getitem__)
    write("own", "0::/\n")
    return write


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        (None, 8),
        ("max 100000", 8),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("broken", 8),
        ("100000 0", 8),
        ("² 100000", 8),
    ],
)
def test_threads_by_quota(write: Write, quota: str | None, threads: int) -> None:
    if quota is not None:
        write("cgroup/cpu.max", quota + "\n")
    assert core_count() == threads


@pytest.mark.parametrize(("quota", "threads"), [("-1", 8), ("350000", 3), ("", 8)])
@pytest.mark.parametrize("names", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_the_quota_of_version_1(write: Write, names: str, quota: str, threads: int) -> None:
    write("own", f"4:memory:/\n3:{names}:/a/b\n0::/\n")
    write(f"cgroup/{names}/a/b/cpu.cfs_quota_us", quota + "\n")
    write(f"cgroup/{names}/a/b/cpu.cfs_period_us", "100000\n")
    assert core_count() == threads


@pytest.mark.parametrize(
    ("own", "quotas", "threads"),
    [
        ("/a/b", {"a/b": "300000", "a": "200000"}, 2),
        ("/a/b", {"a/b": "300000", "a": "max"}, 3),
        ("/a/b", {"": "100000"}, 1),
        ("/host/path/that/is/not/here", {"": "100000"}, 1),
    ],
)
def test_the_tightest_group_counts(write: Write, own: str, quotas: dict[str, str], threads: int) -> None:
    write("own", f"0::{own}\n")
    for folder, quota in quotas.items():
        write(f"cgroup/{folder}/cpu.max", f"{quota} 100000\n")
    assert core_count() == threads


def test_threads_by_affinity(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 5, 6})
    assert core_count() == 3
    write("cgroup/cpu.max", "200000 100000\n")
    assert core_count() == 2


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/\n", {}, 8 * GIB),
        ("0::/\n", {"memory.max": "max"}, 8 * GIB),
        ("0::/\n", {"memory.max": str(GIB)}, GIB),
        ("0::/a\n", {"memory.max": str(GIB), "a/memory.max": str(2 * GIB)}, GIB),
        ("4:memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": str(GIB)}, GIB),
        ("4:memory:/\n0::/\n", {"memory/memory.limit_in_bytes": "9223372036854771712"}, 8 * GIB),
    ],
)
def test_memory_by_limit(write: Write, own: str, files: dict[str, str], expected: int) -> None:
    write("own", own)
    for name, text in files.items():
        write(f"cgroup/{name}", text + "\n")
    assert memory_bytes() == expected


def test_without_control_groups_the_host_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "nowhere")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "nowhere")
    assert (core_count(), memory_bytes()) == (8, 8 * GIB)
