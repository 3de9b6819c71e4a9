"""Threads and memory by the limits of control groups, versions 1 and 2; nothing here looks at the real machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_backend.engine.placement import cgroup, hardware
from llama_backend.engine.placement.cgroup import cpu_limit
from llama_backend.engine.placement.hardware import IdleProcessors, available_memory, default_threads

GIB = 1 << 30
Write = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """A host of 8 processors with 2 hardware threads a core and 8 GiB; writes its files by their path."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(cgroup, "ROOT", tmp_path / "cgroup")
    monkeypatch.setattr(cgroup, "OWN", tmp_path / "own")
    monkeypatch.setattr(hardware, "CPUS", tmp_path / "cpu")
    monkeypatch.setattr(hardware, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(hardware, "TIMES", tmp_path / "stat")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    write("own", "0::/\n")
    write("meminfo", f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    for cpu in range(8):
        write(f"cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}\n")
    return write


@pytest.mark.parametrize(
    ("quota", "threads"),
    [
        (None, 4),
        ("max 100000", 4),
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("1600000 100000", 4),
        ("broken", 4),
        ("100000 0", 4),
    ],
)
def test_threads_by_quota(write: Write, quota: str | None, threads: int) -> None:
    if quota is not None:
        write("cgroup/cpu.max", quota + "\n")
    assert default_threads() == threads


@pytest.mark.parametrize(("quota", "limit"), [("-1", None), ("250000", 2.5), ("", None)])
@pytest.mark.parametrize("names", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_the_quota_of_version_1(write: Write, names: str, quota: str, limit: float | None) -> None:
    write("own", f"4:memory:/\n3:{names}:/a/b\n0::/\n")
    write(f"cgroup/{names}/a/b/cpu.cfs_quota_us", quota + "\n")
    write(f"cgroup/{names}/a/b/cpu.cfs_period_us", "100000\n")
    assert cpu_limit() == limit


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("/a/b", {"a/b": "300000", "a": "200000"}, 2.0),
        ("/a/b", {"a/b": "300000", "a": "max"}, 3.0),
        ("/host/path/that/is/not/here", {"": "100000"}, 1.0),
        ("/../sibling", {"": "100000"}, 1.0),
    ],
)
def test_the_tightest_group_counts(write: Write, own: str, limits: dict[str, str], expected: float) -> None:
    write("own", f"0::{own}\n")
    for folder, quota in limits.items():
        write(f"cgroup/{folder}/cpu.max", f"{quota} 100000\n")
    assert cpu_limit() == expected


@pytest.mark.parametrize(("allowed", "threads"), [({0}, 1), ({0, 4}, 2), ({0, 1, 2, 3}, 4), (set(range(6)), 4)])
def test_threads_by_affinity(monkeypatch: pytest.MonkeyPatch, allowed: set[int], threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    assert default_threads() == threads


def test_without_topology_every_processor_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CPUS", tmp_path / "nowhere")
    assert default_threads() == 8


def test_without_any_file_the_host_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((cgroup, "OWN"), (cgroup, "ROOT"), (hardware, "MEMORY"), (hardware, "TIMES")):
        monkeypatch.setattr(module, name, tmp_path / "nowhere")
    assert default_threads() == 4
    assert available_memory() == 4 * GIB
    assert IdleProcessors()() is None


@pytest.mark.parametrize(
    ("version", "limit_name", "used_name"),
    [(2, "memory.max", "memory.current"), (1, "memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")],
)
def test_memory_by_limit(write: Write, version: int, limit_name: str, used_name: str) -> None:
    write("own", "0::/\n" if version == 2 else "4:memory:/\n0::/\n")
    assert available_memory() == 8 * GIB
    write(f"cgroup/{limit_name}", "1000000\n")
    write(f"cgroup/{used_name}", "400000\n")
    assert available_memory() == 600_000
    write(f"cgroup/{used_name}", "1200000\n")
    assert available_memory() == 0
    write(f"cgroup/{limit_name}", "max\n" if version == 2 else "9223372036854771712\n")
    assert available_memory() == 8 * GIB


@pytest.mark.parametrize(
    ("folder", "limit", "used", "key"),
    [
        ("", "memory.max", "memory.current", "inactive_file"),
        ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_files_that_the_system_can_give_back_are_no_used_memory(
    write: Write, folder: str, limit: str, used: str, key: str
) -> None:
    """A model's pages that were read before stay in the cache, and count as the cgroup's."""
    write("own", "4:memory:/\n0::/\n")
    write(f"cgroup/{folder}{limit}", "1000000\n")
    write(f"cgroup/{folder}{used}", "900000\n")
    write(f"cgroup/{folder}memory.stat", f"anon 100000\nfile 800000\nactive_file 300000\n{key} 500000\n")
    assert available_memory() == 600_000


def test_idle_processors_since_the_last_look(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 2})
    write("stat", "cpu 9 9 9 9 9\ncpu0 100 0 0 100 0 0 0 0\ncpu1 0 0 0 0 0\ncpu2 50 0 0 150 0 0 0 0\nintr 5\n")
    idle = IdleProcessors()
    assert idle() is None
    write("stat", "cpu 9 9 9 9 9\ncpu0 200 0 0 100 0 0 0 0\ncpu1 0 0 0 9 0\ncpu2 75 0 0 200 25 0 0 0\nintr 5\n")
    assert idle() == pytest.approx(0.75)
    write("stat", "cpu 9 9 9 9 9\ncpu0 200 0 0 200 0 0 0 0\ncpu2 75 0 0 300 25 0 0 0\n")
    assert idle() == pytest.approx(2.0)
