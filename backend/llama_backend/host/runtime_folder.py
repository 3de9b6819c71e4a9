"""The folder of the backend's socket. A user who can write there could pose as the backend and read every prompt."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from llama_backend.errors import UntrustedSocket
from llama_backend.host.peer import owner_name

SOCKET_NAME = "backend.sock"
"""The Unix socket of this user's backend in the folder."""
_ELSEWHERE = "set LLAMA_CHAT_RUNTIME_DIR to a folder that is yours"
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def make_folder(folder: Path) -> None:
    """Makes the folder for this user alone if it is missing. Raises OSError and UntrustedSocket."""
    for missing in [folder, *folder.parents][::-1]:
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)
    check_folder(folder)


def check_folder(folder: Path) -> bool:
    """Whether the folder exists. Raises UntrustedSocket where anybody but this user can enter or replace it."""
    try:
        found = folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UntrustedSocket(f"{folder}: {error.strerror}; {_ELSEWHERE}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise UntrustedSocket(f"{folder} is a link or a file, not a folder of this user; {_ELSEWHERE}")
    if found.st_uid != os.geteuid():
        owner = owner_name(found.st_uid)
        raise UntrustedSocket(f"{folder} is not a folder of this user: it belongs to {owner}; {_ELSEWHERE}")
    if found.st_mode & 0o077:
        raise UntrustedSocket(f"other users may enter {folder}, where the backend's socket is; `chmod 700` it")
    for parent in _above(folder):
        _check_parent(parent)
    return True


def _above(folder: Path) -> Iterator[Path]:
    """All parents of the folder, both of its path as written and of the path with links resolved."""
    yield from folder.parents
    yield from folder.resolve().parents


def _check_parent(path: Path) -> None:
    """Refuses a link that another user could change, and a folder in which other users could replace ours.

    What root has set up is accepted: the temporary folder of a pod may be open to all and have no sticky bit.
    """
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        if found.st_uid not in (os.geteuid(), 0):
            raise UntrustedSocket(f"{path} is a link of {owner_name(found.st_uid)}; {_ELSEWHERE}")
    elif found.st_uid and found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX:
        raise UntrustedSocket(f"other users may write to {path}, above the backend's socket; {_ELSEWHERE}")
