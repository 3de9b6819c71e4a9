"""KV states as files: one for each conversation, readable by this user only, and checked before they are used.

A file consists of the magic, the length and the CRC-32 of the header, the header, and the state as llama.cpp gave it.
The name of the folder stands for all that a state depends on, so that states of other models or versions are never
read. Files are written under another name and then renamed. When all of them together exceed the limit, the least
recently used are removed first.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import struct
import time
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO
from zlib import crc32

import msgspec
from msgspec import Struct

from llama_backend.engine.kv.memory import Bytes
from llama_backend.host.kv_state_folder import ENDING, PART, files, folders, last_used, make_private, size_of

_MAGIC = b"LCKV0002"
_PREAMBLE = struct.Struct("<8sII")
_MAX_HEADER = 16 * 1024 * 1024
"""Enough for a million tokens, and for their answers."""
_STALE_PART_SECONDS = 600.0
"""A half-written file that is older was left by a process that was killed (or the clock was changed)."""
_LEAST_FREE = 1 << 30
"""Bytes that always stay free on the disk."""


class DamagedState(Exception):
    """A file is not a complete and unchanged KV state."""


class StoredAnswer(Struct, frozen=True, array_like=True):
    """Token ids of an answer in the conversation, so that the next prompt is cut into the same ones."""

    tokens: list[int]
    stripped: bool
    """Whether a leading space of the first token was not shown."""


class _Header(Struct, frozen=True, array_like=True):
    tokens: bytes
    """Ids as little-endian int32."""
    scope: str
    answers: list[StoredAnswer]
    size: int
    checksum: int


@dataclass(frozen=True)
class StateFile:
    """What a file's header says. `tokens` are int32; only requests of the `scope` may use the state."""

    path: Path
    tokens: bytes
    scope: str
    answers: list[StoredAnswer]


class StateFolder:
    """The files of one `stamp` (see `stamp_of`) below `root`; `limit` is the most bytes of the files of all stamps.

    A file with a token at or above `n_vocab` counts as damaged, since llama.cpp would end the process over it.
    """

    def __init__(self, root: Path, stamp: str, limit: int, n_vocab: int = 1 << 31) -> None:
        self.root = root
        self.limit = limit
        self._n_vocab = n_vocab
        self._folder = root / stamp

    def scan(self) -> list[StateFile]:
        """All files with a valid header, least recently used first; the others are removed."""
        found = []
        for path in sorted(files(self._folder), key=last_used):
            try:
                found.append(self._read_header(path))
            except (OSError, DamagedState):
                self.remove(path)
        self._remove_parts()
        return found

    def write(self, tokens: bytes, scope: str, answers: list[StoredAnswer], data: Bytes) -> Path:
        """Writes a state and returns its path. Raises OSError, also where the disk is nearly full."""
        self._make()
        view = memoryview(data).cast("B")
        header = msgspec.msgpack.encode(_Header(tokens, scope, answers, len(view), crc32(view)))
        name = blake2b(tokens, digest_size=16, key=blake2b(scope.encode()).digest()).hexdigest()
        path = self._folder / f"{name}{ENDING}"
        part = path.with_suffix(f".{os.getpid()}{PART}")
        try:
            number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(number, "wb", buffering=0) as file:
                file.write(_PREAMBLE.pack(_MAGIC, len(header), crc32(header)) + header)
                _write_all(number, view)
            part.replace(path)
        except OSError:
            self.remove(part)
            raise
        return path

    def read(self, path: Path) -> memoryview:
        """The state in a file, mapped into memory, since a file is never changed after it was written.

        Raises OSError and DamagedState.
        """
        with _opened(path) as file:
            header = self._header_of(file.fileno(), path)
            start = file.tell()
            mapped = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | mmap.MAP_POPULATE, prot=mmap.PROT_READ)
        data = memoryview(mapped)[start:]
        if len(data) != header.size or crc32(data) != header.checksum:
            raise DamagedState(f"{path}: the state is damaged")
        with suppress(OSError):
            os.utime(path)
        return data

    def remove(self, path: Path) -> None:
        """Removes a file, if it is there."""
        with suppress(OSError):
            path.unlink(missing_ok=True)

    def shrink(self) -> set[Path]:
        """Removes the least recently used files, of all stamps, until the rest fits the limit; returns their paths."""
        sizes = {path: (last_used(path), size_of(path)) for path in self._all()}
        excess = sum(size for _, size in sizes.values()) - self.limit
        removed: set[Path] = set()
        for path in sorted(sizes, key=lambda path: sizes[path]):
            if excess <= 0:
                break
            self.remove(path)
            removed.add(path)
            excess -= sizes[path][1]
        return removed

    @property
    def used(self) -> int:
        """Bytes of all files, of all stamps."""
        return sum(map(size_of, self._all()))

    def _make(self) -> None:
        """Makes the folder, readable by this user only. Raises OSError, also where the disk is nearly full."""
        make_private(self._folder)
        disk = os.statvfs(self.root)
        if disk.f_bavail * disk.f_frsize < _LEAST_FREE:
            raise OSError(f"less than {_LEAST_FREE >> 20} MiB are free in {self.root}")

    def _all(self) -> Iterator[Path]:
        return (path for folder in folders(self.root) for path in files(folder))

    def _remove_parts(self) -> None:
        for part in files(self._folder, PART):
            if abs(time.time() - last_used(part)) > _STALE_PART_SECONDS:
                self.remove(part)

    def _read_header(self, path: Path) -> StateFile:
        with _opened(path) as file:
            header = self._header_of(file.fileno(), path)
            return StateFile(path, header.tokens, header.scope, header.answers)

    def _header_of(self, number: int, path: Path) -> _Header:
        """The header of an open file, whose position is the state's first byte afterwards. Raises DamagedState."""
        header = _header_of(number, path)
        try:
            ids = array("i", header.tokens)
        except ValueError as error:
            raise DamagedState(f"{path}: the list of its tokens is incomplete") from error
        answered = [token for answer in header.answers for token in answer.tokens]
        if not ids or not all(0 <= token < self._n_vocab for token in (*ids, *answered)):
            raise DamagedState(f"{path}: it has tokens that this model does not have")
        return header


def _opened(path: Path) -> IO[bytes]:
    """Opens a regular file. Raises OSError, also for a link or a pipe."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "this is not a regular file", str(path))
    return os.fdopen(number, "rb", buffering=0)


def _header_of(number: int, path: Path) -> _Header:
    size = os.fstat(number).st_size
    start = os.read(number, _PREAMBLE.size)
    if len(start) != _PREAMBLE.size:
        raise DamagedState(f"{path}: the file is too short")
    magic, length, checksum = _PREAMBLE.unpack(start)
    if magic != _MAGIC or length > min(size, _MAX_HEADER):
        raise DamagedState(f"{path}: this is not a KV state of this version")
    data = bytearray(length)
    if _read_into(number, memoryview(data)) != length or crc32(data) != checksum:
        raise DamagedState(f"{path}: its header is damaged")
    try:
        header = msgspec.msgpack.decode(data, type=_Header)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamagedState(f"{path}: {error}") from error
    if size != _PREAMBLE.size + length + header.size:
        raise DamagedState(f"{path}: the file is incomplete")
    return header


def _read_into(number: int, view: memoryview) -> int:
    done = 0
    while done < len(view) and (count := os.readv(number, [view[done:]])):
        done += count
    return done


def _write_all(number: int, view: memoryview) -> None:
    done = 0
    while done < len(view):
        done += os.write(number, view[done:])
