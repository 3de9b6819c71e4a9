"""Which process is at the other end of a Unix socket, as the kernel says, and how to end that process.

The process id comes from the kernel and not from the process itself, which could lie. While a process is being ended, a
file descriptor refers to it, so that another process that has got the same id meanwhile is never ended.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_backend.errors import UntrustedSocket

_LOOK_SECONDS = 0.02
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
"""Constants of macOS, from sys/un.h."""


@dataclass(frozen=True)
class Peer:
    """The process that listens on a socket; `pid` is 0 for one outside of this container, which has no id here."""

    pid: int
    uid: int


def listener(path: Path) -> Peer | None:
    """The process that listens at `path`, or None. Raises UntrustedSocket if it is neither this user's nor root's.

    The kernel does not identify a process that is too busy to accept connections. Such a process is taken for one of
    this user, since `runtime_folder` makes sure that nobody else can bind a socket there.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except BlockingIOError:
            return Peer(0, os.geteuid())
        except OSError:
            return None
        return _trusted(probe, path)


def end_process(peer: Peer, path: Path, seconds: float) -> bool:
    """Asks the process that listens at `path` to end; returns whether it ended within `seconds`.

    Raises UntrustedSocket for a process that must not be ended from here: process 1 of a container, this process
    itself, one that it cannot see, or one of root.
    """
    if peer.pid <= 1 or peer.pid == os.getpid():
        raise UntrustedSocket(f"{path}: the backend is process {peer.pid}, which is not ended from here")
    try:
        with _held(peer.pid) as held:
            again = listener(path)
            if again != peer:
                return again is None or again.pid > 0
            _signal(peer.pid, held)
            return _wait(peer.pid, held, seconds)
    except ProcessLookupError:
        return True
    except PermissionError as error:
        owner = owner_name(peer.uid)
        raise UntrustedSocket(f"{path}: the backend is process {peer.pid}, which only {owner} can end") from error


def _trusted(connected: socket.socket, path: Path) -> Peer:
    peer = _peer_of(connected)
    if peer.uid not in (os.geteuid(), 0):
        text = f"{path}: a process of {owner_name(peer.uid)} listens there, not one of this user; nothing was sent"
        raise UntrustedSocket(text)
    return peer


def owner_name(uid: int) -> str:
    """A user in an error message: the name, if the system knows it, and the number."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"


def _peer_of(connected: socket.socket) -> Peer:
    """The process at the other end, by SO_PEERCRED on Linux, LOCAL_PEERCRED and LOCAL_PEERPID on macOS."""
    if sys.platform == "darwin":
        _, uid = struct.unpack_from("II", connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76))
        pid = connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
    else:
        pid, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A file descriptor of a process; None where the system has no such descriptors."""
    if sys.platform != "linux":
        yield None
        return
    try:
        held = os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except OSError:
        yield None
        return
    try:
        yield held
    finally:
        os.close(held)


def _signal(pid: int, held: int | None) -> None:
    if held is None or sys.platform != "linux":
        os.kill(pid, signal.SIGTERM)
    else:
        signal.pidfd_send_signal(held, signal.SIGTERM)


def _wait(pid: int, held: int | None, seconds: float) -> bool:
    """Whether the process ends within `seconds`."""
    if held is not None:
        poll = select.poll()
        poll.register(held, select.POLLIN)
        return bool(poll.poll(1000 * seconds))
    end = time.monotonic() + seconds
    while _exists(pid):
        if time.monotonic() > end:
            return False
        time.sleep(_LOOK_SECONDS)
    return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
