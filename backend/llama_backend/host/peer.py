"""Who is at the other end of a Unix socket, as the kernel tells it, and that process's end.

Nothing here believes what is written to a socket: a process is named by the kernel, and held by a file descriptor, so
that no other one that got its number meanwhile is ever meant.
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
"""Of macOS, from sys/un.h."""


@dataclass(frozen=True)
class Peer:
    """The process that listens on a socket; `pid` is 0 where this process cannot see it."""

    pid: int
    uid: int


def listener(path: Path) -> Peer | None:
    """Who listens there, or None; raises UntrustedSocket where that is neither this user nor root.

    One who is too busy to take connections listens as well, but the kernel does not say who it is. That nobody else
    can bind a socket there is up to `runtime_folder`.
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
    """Asks the process that listens at `path` to end; returns whether it did in time.

    Raises UntrustedSocket for a process that is none of ours to end: what a container or this command itself runs in,
    one that this process cannot see, or one of root.
    """
    if peer.pid <= 1 or peer.pid == os.getpid():
        raise UntrustedSocket(f"{path}: the backend is process {peer.pid} of this system, which is not ended from here")
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
        whose = owner_name(peer.uid)
        raise UntrustedSocket(f"{path}: the backend is process {peer.pid} of {whose}, who alone can end it") from error


def _trusted(connected: socket.socket, path: Path) -> Peer:
    peer = _peer_of(connected)
    if peer.uid not in (os.geteuid(), 0):
        text = f"{path}: a process of {owner_name(peer.uid)} listens there, not one of this user; nothing was sent"
        raise UntrustedSocket(text)
    return peer


def owner_name(uid: int) -> str:
    """A user for a message: name and number, as far as the system knows them."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name} ({uid})"
    except KeyError:
        return f"user {uid}"


def _peer_of(connected: socket.socket) -> Peer:
    """By SO_PEERCRED on Linux, LOCAL_PEERCRED and LOCAL_PEERPID on macOS."""
    if sys.platform == "darwin":
        _, uid = struct.unpack_from("II", connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, 76))
        pid = connected.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID)
    else:
        pid, uid, _ = struct.unpack("3i", connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid)


@contextmanager
def _held(pid: int) -> Iterator[int | None]:
    """A descriptor of a process; None where the system has none of these, and its number has to do."""
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
    """Whether the process ends within as long."""
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
