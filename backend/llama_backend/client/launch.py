"""The backend of this user on this machine: found where it runs, started where it does not.

The front end binds the Unix socket itself, under a lock, and passes it to the new process. So requests can be sent at
once, without waiting for the start, and a second front end finds the socket and starts no other backend.
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
from llama_backend.host.runtime_folder import SOCKET_NAME, check_folder
from llama_backend.server_config import ServerConfig

if TYPE_CHECKING:
    from llama_backend.client.http_client import Address

_BACKLOG = 128
_MAX_SOCKET_PATH = 107
"""Bytes in `sun_path` of sockaddr_un on Linux, without the NUL."""
_LOG_SIZE = 1024 * 1024
"""A log file with more bytes is set aside before the next start."""


@dataclass(frozen=True)
class RuntimeFiles:
    """The files of one user's backend: a private folder with socket and lock, and a log file."""

    folder: Path
    log: Path

    @property
    def socket(self) -> Path:
        return self.folder / SOCKET_NAME

    @property
    def lock(self) -> Path:
        return self.folder / "backend.lock"


def find(files: RuntimeFiles) -> Address | None:
    """The running backend, or None; raises UntrustedSocket where it may be another user's."""
    return _address(files) if _answers(files) else None


def ensure(files: RuntimeFiles, config: ServerConfig) -> Address:
    """The running backend, or a new one that is starting; requests can be sent to either at once.

    Raises Unreachable where no backend can be started, and UntrustedSocket.
    """
    if _answers(files):
        return _address(files)
    try:
        with _locked(files):
            if not _answers(files):
                _start(files, config)
    except OSError as error:
        where = error.filename or files.folder
        raise Unreachable(f"a backend cannot be started: {where}: {error.strerror or error}") from error
    return _address(files)


def stop(files: RuntimeFiles, pid: int, seconds: float = 10.0) -> bool:
    """Asks the backend to end; returns whether it ended in time. `pid` is its process id according to its status.

    Only the process that listens on the socket according to the kernel is signalled. Raises UntrustedSocket where that
    is not `pid`, since then the status came from another process.
    """
    found = _listener(files)
    if found is None:
        return True
    if found.pid != pid:
        text = f"{files.socket}: process {found.pid} listens there, and {pid} answers; neither is ended"
        raise UntrustedSocket(text)
    return end_process(found, files.socket, seconds)


def _address(files: RuntimeFiles) -> Address:
    """The address; the HTTP client is imported only now, while a new backend is already loading its model."""
    from llama_backend.client.http_client import Address

    return Address(socket=files.socket)


def _answers(files: RuntimeFiles) -> bool:
    return _listener(files) is not None


def _listener(files: RuntimeFiles) -> Peer | None:
    """The process that listens on the socket; raises UntrustedSocket where others can enter its folder."""
    return listener(files.socket) if check_folder(files.folder) else None


@contextmanager
def _locked(files: RuntimeFiles) -> Iterator[None]:
    with files.lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(files: RuntimeFiles, config: ServerConfig) -> None:
    """Binds the socket, replacing a stale one, and starts a server on it that is detached from the terminal."""
    files.socket.unlink(missing_ok=True)
    with _open_log(files.log) as log, _listen(files.socket) as listener:
        full = msgspec.structs.replace(
            config, socket=str(files.socket), socket_fd=listener.fileno(), log=str(files.log)
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
    # A thread waits for the end of the new process, so that it does not stay as a zombie while this process lives.
    threading.Thread(target=process.wait, name="backend", daemon=True).start()


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        text = f"{path}: too long for a socket ({_MAX_SOCKET_PATH} bytes); set LLAMA_CHAT_RUNTIME_DIR to a shorter path"
        raise Unreachable(text)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unreachable(f"cannot listen on {path}: {error.strerror or error}") from error
    return listener


@contextmanager
def _open_log(path: Path) -> Iterator[int]:
    """The log file, opened for appending; a large one is set aside first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_SIZE:
        path.replace(path.with_suffix(".old.log"))
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        yield file
    finally:
        os.close(file)
