"""What can be seen of a process from outside."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_backend.server.engines import watched_process
from llama_backend.server.engines.watched_process import WatchedProcess
from tests.support.clock import movable_clock
from tests.support.wait import until


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that idle time is measured with."""
    return movable_clock(monkeypatch, watched_process)


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "S"


def test_a_process_that_uses_the_processor_or_gives_a_sign_is_not_idle(clock: Callable[[float], None]) -> None:
    with subprocess.Popen(["sleep", "30"]) as quiet:
        until(lambda: sleeps(quiet.pid), what="sleep")
        watched = WatchedProcess(quiet.pid)
        assert watched.idle_seconds() < 30
        clock(60)
        assert watched.idle_seconds() > 30
        watched.note_activity()
        assert watched.idle_seconds() < 30
        quiet.kill()
    watched = WatchedProcess(os.getpid())
    for _ in range(3):
        clock(60)
        sum(range(3_000_000))
        assert watched.idle_seconds() < 30


def test_how_long_a_process_has_been_stopped(clock: Callable[[float], None]) -> None:
    with subprocess.Popen(["sleep", "30"]) as process:
        watched = WatchedProcess(process.pid)
        assert (watched.is_stopped(), watched.stopped_seconds()) == (False, 0.0)
        process.send_signal(signal.SIGSTOP)
        until(watched.is_stopped, what="the stop")
        assert watched.stopped_seconds() < 30
        clock(60)
        assert watched.stopped_seconds() > 30
        process.send_signal(signal.SIGCONT)
        until(lambda: not watched.is_stopped(), what="the end of the stop")
        assert watched.stopped_seconds() == 0.0
        process.kill()
