"""Files: JSON, digests, free space, and writing so that half a file is never taken for the whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from llama_convert.errors import ConvertError, CorruptSource, DiskFull, OutputExists
from llama_convert.progress import Progress
from llama_convert.untrusted import MOST_CONFIG, open_regular, parse_object, read_regular

_BLOCK: Final = 4 << 20
PART: Final = ".part"


def read_json(path: Path, most: int = MOST_CONFIG) -> dict[str, Any]:
    """The object in a JSON file of `most` bytes, one of the limits in `foreign`; empty where there is no such file.

    Raises:
        CorruptSource: the file holds something else.
    """
    return parse_object(read_regular(path, most), path, most) if path.exists() else {}


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file that is there whole or not at all."""
    with replacing(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8", "replace")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well and is removed when it does not.

    Raises:
        DiskFull: the disk filled up while the block wrote.
        ConvertError: the folder cannot be written to.
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
    """Move a finished file to its place, where whoever may read the folder may read it too.

    A folder of models may be shared with servers of other users; one that is private keeps what is in it private.
    """
    part.chmod(part.stat().st_mode | path.parent.stat().st_mode & 0o044)
    part.replace(path)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors about writing `path` into ours."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{path}: the disk is full") from error
        raise ConvertError(f"{error.filename or path}: {error.strerror or error}") from error


def check_free(path: Path, *, force: bool) -> None:
    """Refuse to replace what is at `path`, a link that leads nowhere too; with `force` refuse only a folder.

    Raises:
        OutputExists: it is in the way.
    """
    if os.path.lexists(path) and not force:
        raise OutputExists(f"{path}: exists already; use --force to replace it")
    if path.is_dir() and not path.is_symlink():
        raise OutputExists(f"{path}: is a folder, and is not replaced")


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for as long as the block lasts.

    Raises:
        ConvertError: it cannot be made or written to.
    """
    with explained(Path("the folder for temporary files")), tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def sync(path: Path) -> None:
    """Have the system write a file's content to the disk."""
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
    """The SHA-256 of each file, in hexadecimal; `md5` maps names of files to the MD5 that they must have.

    Raises:
        CorruptSource: a file has another MD5.
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
            raise CorruptSource(f"{path}: has the MD5 {digests[1].hexdigest()}, and {wanted} is the right one")
    progress.finish()
    return found


def _blocks(path: Path) -> Iterator[bytes]:
    with open_regular(path) as file:
        while block := file.read(_BLOCK):
            yield block
