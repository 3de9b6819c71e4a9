"""Processors and memory by the limits of the cgroup."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_backend.engine import hardware
from llama_backend.engine.hardware import available_memory, default_threads


@pytest.fixture
def cgroup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the cgroup's, and a host of 8 processors with 2 hardware threads a core."""
    folder = tmp_path / "cgroup"
    folder.mkdir()
    monkeypatch.setattr(hardware, "_CGROUP", folder)
    monkeypatch.setattr(hardware, "_CPUS", tmp_path / "cpu")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    for cpu in range(8):
        topology = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    return folder


@pytest.mark.parametrize(
    ("quota", "threads"),
    [(None, 4), ("max 100000", 4), ("200000 100000", 2), ("50000 100000", 1), ("1600000 100000", 4), ("broken", 4)],
)
def test_threads_by_quota(cgroup: Path, quota: str | None, threads: int) -> None:
    if quota is not None:
        (cgroup / "cpu.max").write_text(quota + "\n")
    assert default_threads() == threads


@pytest.mark.parametrize(("allowed", "threads"), [({0}, 1), ({0, 4}, 2), ({0, 1, 2, 3}, 4), (set(range(6)), 4)])
@pytest.mark.usefixtures("cgroup")
def test_threads_by_affinity(monkeypatch: pytest.MonkeyPatch, allowed: set[int], threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed)
    assert default_threads() == threads


def test_without_topology_every_processor_counts(cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_CPUS", cgroup / "nowhere")
    assert default_threads() == 8


def test_memory_by_limit(cgroup: Path) -> None:
    free = available_memory()
    assert free > 0
    (cgroup / "memory.max").write_text("1000000\n")
    (cgroup / "memory.current").write_text("400000\n")
    assert available_memory() == 600_000
    (cgroup / "memory.current").write_text("1200000\n")
    assert available_memory() == 0
    (cgroup / "memory.max").write_text("max\n")
    assert available_memory() == pytest.approx(free, rel=0.5)


def test_files_that_the_system_can_give_back_are_no_used_memory(cgroup: Path) -> None:
    """A model's pages that were read before stay in the cache, and count as the cgroup's."""
    (cgroup / "memory.max").write_text("1000000\n")
    (cgroup / "memory.current").write_text("900000\n")
    (cgroup / "memory.stat").write_text("anon 100000\nfile 800000\nactive_file 300000\ninactive_file 500000\n")
    assert available_memory() == 600_000
