"""Listening sockets: opened or inherited at the start, and removed at the end."""

from __future__ import annotations

import ipaddress
import socket
from contextlib import suppress
from pathlib import Path

from llama_backend.errors import InvalidRequest
from llama_backend.server_config import ServerConfig

_BACKLOG = 1024


def open_sockets(config: ServerConfig) -> list[socket.socket]:
    """The listening sockets of a configuration; raises InvalidRequest where an address cannot be used."""
    sockets = []
    if config.host is not None:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        sockets.append(_bind(family, (config.host, config.port), f"{config.host}:{config.port}"))
    # The Unix socket comes last, since only it leaves a file behind.
    if config.socket_fd is not None:
        sockets.append(_inherited(config.socket_fd))
    elif config.socket is not None:
        sockets.append(_bind(socket.AF_UNIX, config.socket, config.socket))
    return sockets


def _inherited(number: int) -> socket.socket:
    """A socket that the front end has bound. `listen` makes this process the one that the kernel names to clients."""
    sock = socket.socket(fileno=number)
    sock.listen(_BACKLOG)
    return sock


def is_loopback(host: str) -> bool:
    """Whether a name or an address always means this machine."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _bind(family: socket.AddressFamily, address: str | tuple[str, int], name: str) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_UNIX:
            _remove_stale(Path(name))
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        if family == socket.AF_UNIX:
            Path(name).chmod(0o600)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise InvalidRequest(
            f"cannot listen on {name}: {reason}; choose another address or end what uses it"
        ) from error
    return sock


def _remove_stale(path: Path) -> None:
    """Removes the file of a socket on which no process listens any more."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


def remove_socket(path: str | None, inode: int | None) -> None:
    """Removes the socket's file, unless another server has replaced it by its own meanwhile."""
    if path is not None and inode is not None and inode_of(path) == inode:
        with suppress(FileNotFoundError):
            Path(path).unlink()


def inode_of(path: str | None) -> int | None:
    """The inode of a file, or None where there is none."""
    try:
        return Path(path).stat().st_ino if path else None
    except OSError:
        return None
