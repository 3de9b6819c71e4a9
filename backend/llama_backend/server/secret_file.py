"""Reads files with secrets up to a plausible size, and checks whether other users can read or change them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from llama_backend.errors import InvalidRequest

LARGEST = 1 << 20
"""Most bytes of a file with secrets."""


def read_secret(path: Path) -> bytes:
    """The content of a file; raises OSError, and InvalidRequest for a pipe, a device, or a file that is too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidRequest("this is not a regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InvalidRequest(f"the file has more than {LARGEST} bytes")
    return content


def exposure(found: os.stat_result) -> str | None:
    """A warning where another user can read or change a file, or None. The file's group may read it.

    This is not an error, since Kubernetes mounts Secrets so that all users of the container can read them.
    """
    if found.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user, who can change it"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can change it (mode {stat.S_IMODE(found.st_mode):o}); `chmod 600` it"
    if found.st_mode & stat.S_IROTH:
        return f"all users of this machine can read it (mode {stat.S_IMODE(found.st_mode):o}); `chmod 600` it"
    return None
