"""Files: JSON, digests, free space, and writing in a way that never leaves half a file under the final name."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llama_convert.errors import ConvertError, CorruptSource, DiskFull, OutputExists
from llama_convert.progress import Progress
from llama_convert.untrusted import MOST_CONFIG, open_regular, parse_object, read_regular

_BLOCK = 4 << 20
PART = ".part"
LICENSES = ("LICENSE*", "USE_POLICY*", "NOTICE*")
"""Names of the licences and notices that stay with a model."""


def read_json(path: Path, most: int = MOST_CONFIG) -> dict[str, Any]:
    """The object in a JSON file of at most `most` bytes, a limit of `untrusted`; empty where there is no such file.

    Raises CorruptSource where the file holds something else.
    """
    return parse_object(read_regular(path, most), path, most) if path.exists() else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file; it appears when it is complete, or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8", "replace")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to. The file replaces `path` when the block succeeds, and is removed when it fails.

    Raises DiskFull where the disk fills up, and ConvertError where the folder cannot be written to.
    """
    part = path.with_name(path.name + PART)
    try:
        with explained(path):
            part.unlink(missing_ok=True)
            yield part
            sync(part)
            install(part, path)
    except BaseException:
        with explained(path):
            part.unlink(missing_ok=True)
        raise


def install(part: Path, path: Path) -> None:
    """Moves a finished file to its place and lets everyone read it who may read the folder.

    A folder of models may be shared with the servers of other users; in a private folder the file stays private.
    """
    part.chmod(part.stat().st_mode | path.parent.stat().st_mode & 0o044)
    part.replace(path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the system's errors about writing `path` into errors of this package."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: the disk is full") from error
        raise ConvertError(f"{error.filename or path}: {error.strerror or error}") from error


def check_free(path: Path, *, force: bool) -> None:
    """Checks that `path` may be written.

    Raises OutputExists where a file or a link, even a broken one, is there; with `force` only where it is a folder.
    """
    if os.path.lexists(path) and not force:
        raise OutputExists(f"{path}: exists already; use --force to replace it")
    if path.is_dir() and not path.is_symlink():
        raise OutputExists(f"{path}: is a folder, which is never replaced")


def require_space(folder: Path, needed: int, free: int) -> None:
    """Checks that `free` bytes of the disk of `folder` suffice.

    Raises DiskFull where more are needed.
    """
    if needed > free:
        raise DiskFull(f"{folder}: {needed / 1e9:.2f} GB are needed, but only {free / 1e9:.2f} GB are free")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that exists until the block ends.

    Raises ConvertError where it cannot be created or written to.
    """
    with explained(Path("the folder for temporary files")), tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def lock(descriptor: int, message: str) -> None:
    """Locks an open file for this process alone; raises ConvertError with `message` where another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConvertError(message) from error


def sync(path: Path) -> None:
    """Has the system write a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """Bytes that can be written to the disk of `folder`, or of the nearest parent that exists."""
    while not folder.exists():
        folder = folder.parent
    stats = os.statvfs(folder)
    return stats.f_bavail * stats.f_frsize


def sha256_of(paths: Sequence[Path], progress: Progress, md5: Mapping[str, str] | None = None) -> dict[Path, str]:
    """The SHA-256 of each file, in hexadecimal. `md5` maps names of files to the MD5 that they must have.

    Raises CorruptSource where a file has another MD5.
    """
    progress.start("hash", sum(path.stat().st_size for path in paths))
    done, found = 0, {}
    for path in paths:
        wanted = (md5 or {}).get(path.name)
        digests = [hashlib.sha256(), *([hashlib.md5(usedforsecurity=False)] if wanted else [])]
        for block in _blocks(path):
            for digest in digests:
                digest.update(block)
            done += len(block)
            progress.advance(done)
        found[path] = digests[0].hexdigest()
        if wanted and digests[1].hexdigest() != wanted:
            raise CorruptSource(f"{path}: has the MD5 {digests[1].hexdigest()}, but the checklist says {wanted}")
    progress.finish()
    return found


def _blocks(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            yield block
