"""The backend of this user on this machine: found where it runs, started where it does not.

The front end binds the Unix socket itself, under a lock, and hands it to the new process. So there is no
moment to wait for: a request can be sent at once, and a second front end finds the socket in place.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llama_backend.errors import Unreachable, UntrustedSocket
from llama_backend.host.peer import Peer, end_process, listener
from llama_backend.host.privacy import without_secrets
from llama_backend.host.runtime_folder import check_folder
from llama_backend.server_config import ServerConfig

if TYPE_CHECKING:
    from llama_backend.client.http_client import Address

_BACKLOG = 128
_MAX_SOCKET_PATH = 107
"""Bytes in `sun_path` of sockaddr_un on Linux, without the NUL."""
_LOG_SIZE = 1024 * 1024


@dataclass(frozen=True)
class RuntimeFiles:
    """Where the backend of a user is: a private folder for socket and lock, and a log file."""

    folder: Path
    log: Path

    @property
    def socket(self) -> Path:
        return self.folder / "backend.sock"

    @property
    def lock(self) -> Path:
        return self.folder / "backend.lock"


def find(place: RuntimeFiles) -> Address | None:
    """The running backend, or None; raises UntrustedSocket where it may be somebody else's."""
    return _address(place) if _answers(place) else None


def ensure(place: RuntimeFiles, config: ServerConfig) -> Address:
    """The running backend, or else a new one that is starting; requests can be sent to either.

    Raises Unreachable where neither can be had.
    """
    if _answers(place):
        return _address(place)
    try:
        with _locked(place):
            if not _answers(place):
                _start(place, config)
    except OSError as error:
        where = error.filename or place.folder
        raise Unreachable(f"a backend cannot be started: {where}: {error.strerror or error}") from error
    return _address(place)


def stop(place: RuntimeFiles, pid: int, seconds: float = 10.0) -> bool:
    """Asks the backend to end, which says of itself that its process id is `pid`; returns whether it did in time.

    The kernel says who listens on the socket, and only that process is signalled. Raises UntrustedSocket where it is
    another than `pid`: then what answers is not what listens.
    """
    found = _listener(place)
    if found is None:
        return True
    if found.pid != pid:
        text = f"{place.socket}: process {found.pid} listens there, and {pid} answers; neither is ended"
        raise UntrustedSocket(text)
    return end_process(found, place.socket, seconds)


def _address(place: RuntimeFiles) -> Address:
    """Imports the HTTP client only now, while a backend that was just started is loading its model."""
    from llama_backend.client.http_client import Address

    return Address(socket=place.socket)


def _answers(place: RuntimeFiles) -> bool:
    return _listener(place) is not None


def _listener(place: RuntimeFiles) -> Peer | None:
    """Who listens at a place that only this user can enter."""
    return listener(place.socket) if check_folder(place.folder) else None


@contextmanager
def _locked(place: RuntimeFiles) -> Iterator[None]:
    with place.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(place: RuntimeFiles, config: ServerConfig) -> None:
    """Binds the socket in place of a stale one and starts a server on it, detached from this terminal."""
    place.socket.unlink(missing_ok=True)
    with _open_log(place.log) as log, _listen(place.socket) as listener:
        full = msgspec.structs.replace(
            config, socket=str(place.socket), socket_fd=listener.fileno(), log=str(place.log)
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "llama_backend.server", msgspec.json.encode(full).decode()],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,
            cwd="/",
            env=without_secrets(os.environ),
        )
    # Whoever started it takes note of its end, if still there, so that no zombie is left.
    threading.Thread(target=process.wait, name="backend", daemon=True).start()


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        text = f"{path}: too long for a socket ({_MAX_SOCKET_PATH} bytes); set LLAMA_CHAT_RUNTIME_DIR"
        raise Unreachable(text)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unreachable(f"{path}: cannot listen there: {error.strerror or error}") from error
    return listener


@contextmanager
def _open_log(path: Path) -> Iterator[int]:
    """The log file, opened for appending; one that has grown large is set aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_SIZE:
        path.replace(path.with_suffix(".old.log"))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield file
    finally:
        os.close(file)
