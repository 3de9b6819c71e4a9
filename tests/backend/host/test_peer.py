"""Who listens on a socket is what the kernel says, and nobody else is ever ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from llama_backend.client.launch import RuntimeFiles, find, stop
from llama_backend.errors import UntrustedSocket
from llama_backend.host.peer import Peer, end_process, listener
from tests.support.server.harness import runs

STRANGER = 12345
HOLD = """
import os, socket, sys, time
os.setuid(int(sys.argv[2]))
listener = socket.socket(fileno=int(sys.argv[1]))
listener.listen()
print("listening", flush=True)
time.sleep(600)
"""
"""A process that has a bound socket of somebody else listen, so that the kernel names this one."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def files(tmp_path: Path) -> RuntimeFiles:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    return RuntimeFiles(folder, tmp_path / "log")


@contextmanager
def held(path: Path, user: int = os.geteuid()) -> Iterator[subprocess.Popen[bytes]]:
    """A process that listens there, as `user`."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))
        command = [sys.executable, "-I", "-c", HOLD, str(bound.fileno()), str(user)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[bound.fileno()])
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"listening\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_kernel_names_the_process_that_listens(files: RuntimeFiles) -> None:
    with held(files.socket) as process:
        assert listener(files.socket) == Peer(process.pid, os.geteuid())
        assert stop(files, process.pid)
        assert process.wait() == -15
    assert listener(files.socket) is None


def test_the_answer_of_a_socket_points_at_nobody_else(files: RuntimeFiles) -> None:
    with held(files.socket), subprocess.Popen(["sleep", "600"]) as victim:
        with pytest.raises(UntrustedSocket, match=f"and {victim.pid} answers; neither is ended"):
            stop(files, victim.pid)
        assert runs(victim.pid)
        victim.kill()


@pytest.mark.parametrize("pid", [-1, 0, 1, os.getpid()])
def test_some_processes_are_never_ended(files: RuntimeFiles, pid: int) -> None:
    with held(files.socket), pytest.raises(UntrustedSocket, match="not ended from here"):
        end_process(Peer(pid, os.geteuid()), files.socket, 1)


def test_a_number_that_another_process_has_got_meanwhile_is_not_signalled(files: RuntimeFiles) -> None:
    with held(files.socket) as old:
        found = listener(files.socket)
        old.kill()
        old.wait()
    files.socket.unlink()
    with subprocess.Popen(["sleep", "600"]) as heir, held(files.socket) as other:
        assert found is not None
        assert end_process(Peer(heir.pid, found.uid), files.socket, 1)
        assert runs(heir.pid)
        assert runs(other.pid)
        heir.kill()


def test_one_who_ended_meanwhile_has_ended(files: RuntimeFiles) -> None:
    with held(files.socket) as process:
        found = listener(files.socket)
        process.kill()
        process.wait()
    assert found is not None
    assert end_process(found, files.socket, 1)


@needs_root
def test_a_process_of_somebody_else_is_sent_nothing(files: RuntimeFiles) -> None:
    with held(files.socket, user=STRANGER) as process:
        for ask in (lambda: find(files), lambda: stop(files, process.pid)):
            with pytest.raises(UntrustedSocket, match=f"a process of user {STRANGER} listens there"):
                ask()
        assert runs(process.pid)


@needs_root
@pytest.mark.parametrize("ask", [find, lambda files: stop(files, 4242)], ids=["find", "stop"])
def test_in_a_folder_of_somebody_else_nobody_is_asked(
    files: RuntimeFiles, ask: Callable[[RuntimeFiles], object]
) -> None:
    os.chown(files.folder, STRANGER, STRANGER)
    with pytest.raises(UntrustedSocket, match=f"it belongs to user {STRANGER}"):
        ask(files)


def test_where_connections_queue_up_somebody_listens(files: RuntimeFiles) -> None:
    with socket.socket(socket.AF_UNIX) as full, ExitStack() as stack:
        full.bind(str(files.socket))
        full.listen(0)
        while (found := listener(files.socket)) == Peer(os.getpid(), os.geteuid()):
            waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(str(files.socket))
        assert found == Peer(0, os.geteuid())


@needs_root
def test_the_owner_of_a_process_that_cannot_be_ended_is_named(
    files: RuntimeFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with (
        held(files.socket) as process,
        pytest.raises(UntrustedSocket, match=f"process {process.pid}, which only user root"),
    ):
        stop(files, process.pid)
