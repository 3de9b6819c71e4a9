"""Files with secrets: read where they are files of a likely size, and pointed out where others can get at them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from llama_backend.errors import InvalidRequest

LARGEST = 1 << 20


def read_secret(path: Path) -> bytes:
    """The content of a file; raises OSError, and InvalidRequest for a pipe, a device, or what is too large."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise InvalidRequest("it is no regular file")
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise InvalidRequest(f"it has more than {LARGEST} bytes")
    return content


def exposure(found: os.stat_result) -> str | None:
    """Who beside its owner and root can read or change a file, as a warning; a group that may read it is meant to.

    It is no more than a warning: Secrets that Kubernetes mounts are readable by all, in a container of their own.
    """
    if found.st_uid not in (os.geteuid(), 0):
        return "it belongs to another user, who can change it"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others can change it (mode {stat.S_IMODE(found.st_mode):o}); `chmod 600` keeps it to you"
    if found.st_mode & stat.S_IROTH:
        return f"all users of this machine can read it (mode {stat.S_IMODE(found.st_mode):o}); `chmod 600` ends that"
    return None
