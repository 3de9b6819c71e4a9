"""A disk that is full, or a file that may not grow: what was asked and answered is not lost in silence."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_chat.history import History
from tests.support.scripted_server import ScriptedServer
from tests.tui.cli.conftest import PROGRAM, Outcome

LONG = tuple(f"word{number} " * 100 for number in range(400))
"""An answer of about 300 kB."""


def limited(size: int, *arguments: str) -> Outcome:
    """A command whose files may not grow beyond as many bytes."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    done = subprocess.run([*PROGRAM, *arguments], stdin=subprocess.DEVNULL, capture_output=True, preexec_fn=limit)
    return Outcome(done.returncode, done.stdout, done.stderr.decode())


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Our files on a disk of 1 MiB, of which only so many bytes are free."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder):
        monkeypatch.setenv("LLAMA_CHAT_DATA_DIR", str(folder / "data"))

        def fill(free: int) -> None:
            left = shutil.disk_usage(folder).free
            (folder / "ballast").write_bytes(bytes(max(left - free, 0)))

        yield fill


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("a disk cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_answer_that_cannot_be_kept_is_written_to_its_end(backend: ScriptedServer, history: History) -> None:
    backend.enqueue(*LONG)
    done = limited(200_000, "ask", "hi")
    assert done.out.decode() == "".join(LONG) + "\n"
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"the history {history.path} cannot be used" in done.err
    assert "continue with --no-log" in done.err
    assert history.messages(history.conversations()[0].id)[0].text == "hi"


def test_a_question_that_cannot_be_kept_is_not_asked(backend: ScriptedServer, history: History) -> None:
    done = limited(10_000, "ask", "hi")
    assert (done.code, done.out, done.err.count("\n")) == (1, b"", 1)
    assert "continue with --no-log" in done.err
    assert backend.requests == []
    assert limited(10_000, "ask", "--no-log", "hi").out == b"Hello, world!\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk")
def test_a_full_disk(backend: ScriptedServer, small_disk: Callable[[int], None]) -> None:
    backend.enqueue("kept")
    assert limited(-1, "ask", "first").out == b"kept\n"
    small_disk(64 << 10)
    backend.enqueue(*LONG)
    done = limited(-1, "ask", "second")
    assert (done.code, done.out.decode()) == (1, "".join(LONG) + "\n")
    assert "full; free some space, or continue with --no-log" in done.err
    small_disk(0)
    done = limited(-1, "history", "list")
    assert (done.code, b"first" in done.out, b"second" in done.out) == (0, True, True)
