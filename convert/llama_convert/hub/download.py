"""Fetches one large file: it resumes at the byte where it stopped, and hashes the bytes as they arrive."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from io import FileIO
from pathlib import Path

import httpx2

from llama_convert.errors import ConvertError, CorruptSource, DownloadFailed
from llama_convert.files import PART, explained, lock
from llama_convert.hub.client import answered
from llama_convert.hub.http import NetworkError, Pace, host, opened
from llama_convert.hub.listing import RemoteFile

_BLOCK = 1 << 20
_ATTEMPTS = 6
_LONGEST_WAIT = 60.0

Advance = Callable[[int], None]


class _Interrupted(Exception):
    """The connection ended early, or the server asks to try again after `wait` seconds."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Downloader:
    """Fetches files over HTTP; `sleep` waits between attempts, and `clock` measures how fast the bytes arrive."""

    def __init__(
        self,
        headers: Mapping[str, str],
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._headers = headers
        self._sleep = sleep
        self._clock = clock

    def fetch(self, repository: str, url: str, file: RemoteFile, target: Path, advance: Advance) -> str:
        """Fetches `file` to `target`, and returns its SHA-256; `advance` is called with the bytes that are there.

        The bytes are collected in a file beside `target` whose name has the start of the digest; a later call resumes
        there. The token goes to the first host only, not to a host that it redirects to.

        Raises CorruptSource where the bytes do not have the digest that the hub lists (they are removed), and
        DownloadFailed where the server is wrong about the size, or fails again and again.
        """
        part = part_path(target, file)
        with explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            with _open_part(part) as gathered:
                self._complete(repository, url, file, gathered, advance)
                digest = gathered.digest.hexdigest()
            if file.sha256 and digest != file.sha256:
                part.unlink()
                raise CorruptSource(f"{file.path}: has the SHA-256 {digest}, but the hub lists {file.sha256}")
            part.replace(target)
        return digest

    def _complete(self, repository: str, url: str, file: RemoteFile, part: _Part, advance: Advance) -> None:
        if part.size > file.size:
            part.reset()
        advance(part.size)
        failures = 0
        while part.size < file.size:
            before = part.size
            try:
                self._transfer(repository, url, file, part, advance)
            except (_Interrupted, *NetworkError) as error:
                failures = 0 if part.size >= before + Pace.LEAST else failures + 1
                if failures >= _ATTEMPTS:
                    reason = str(error) or type(error).__name__
                    raise DownloadFailed(f"{file.path}: {reason} ({host(url)})") from error
                self._sleep(_wait(error, failures))

    def _transfer(self, repository: str, url: str, file: RemoteFile, part: _Part, advance: Advance) -> None:
        """Reads one answer to its end.

        Raises _Interrupted where the answer ends before the file does.
        """
        headers = {**self._headers, "Range": f"bytes={part.size}-"}
        pace = Pace(self._clock)
        with opened(url, headers) as response:
            if _starts_over(repository, response, file, part.size):
                part.reset()
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _Interrupted("the server refuses to send the rest of the file")
            for block in response.iter_raw():
                if part.size + len(block) > file.size:
                    raise DownloadFailed(f"{file.path}: the server sends more than the {file.size} bytes that it lists")
                part.append(block)
                advance(part.size)
                if pace.too_slow(len(block)):
                    raise _Interrupted(f"the server sends less than {Pace.LEAST} bytes in {Pace.PERIOD:.0f} seconds")
        if part.size < file.size:
            raise _Interrupted("the connection ended early")


class _Part:
    """The bytes of a file so far, and their digest. What an earlier call has left is read first."""

    def __init__(self, output: FileIO) -> None:
        self._output = output
        self.size = 0
        self.digest = hashlib.sha256()
        while block := output.read(_BLOCK):
            self.digest.update(block)
            self.size += len(block)

    def append(self, block: bytes) -> None:
        view = memoryview(block)
        while view:
            view = view[self._output.write(view) :]
        self.digest.update(block)
        self.size += len(block)

    def reset(self) -> None:
        self._output.seek(0)
        self._output.truncate()
        self.digest = hashlib.sha256()
        self.size = 0


def part_path(target: Path, file: RemoteFile) -> Path:
    """Where the bytes of a file are collected until it is complete."""
    return target.with_name(f"{target.name}.{(file.sha256 or file.blob_id or 'unknown')[:12]}{PART}")


def _starts_over(repository: str, response: httpx2.Response, file: RemoteFile, offset: int) -> bool:
    """Whether what has been fetched must be dropped: the answer begins at the first byte, or the range is refused.

    Raises _Interrupted where the server is busy, and ConvertError where it refuses, or gives another size.
    """
    status = response.status_code
    if status in (429, 500, 502, 503, 504):
        raise _Interrupted(f"HTTP status {status}", _retry_after(response))
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        _check_size(file, response.headers.get("content-range", ""))
        return offset > 0
    if status == HTTPStatus.PARTIAL_CONTENT:
        span = response.headers.get("content-range", "")
        _check_size(file, span)
        if not span.startswith(f"bytes {offset}-"):
            raise DownloadFailed(f"{file.path}: the server was asked for the bytes from {offset} on and sends {span!r}")
        return False
    if status != HTTPStatus.OK:
        raise _refused(repository, file, status)
    length = response.headers.get("content-length")
    if length is not None and length != str(file.size):
        raise _wrong_size(file, length)
    return True


def _check_size(file: RemoteFile, span: str) -> None:
    """Compares the total in a Content-Range header with the listed size."""
    total = span.rpartition("/")[2]
    if total.isdecimal() and total != str(file.size):
        raise _wrong_size(file, total)


def _wrong_size(file: RemoteFile, said: str) -> DownloadFailed:
    return DownloadFailed(f"{file.path}: the server has {said} bytes, but the hub lists {file.size}")


def _refused(repository: str, file: RemoteFile, status: int) -> ConvertError:
    error = answered(repository, status)
    return type(error)(f"{error} ({file.path})")


def _retry_after(response: httpx2.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    return min(float(value), _LONGEST_WAIT) if value.isascii() and value.isdecimal() else None


def _wait(error: Exception, failures: int) -> float:
    asked = error.wait if isinstance(error, _Interrupted) else None
    return asked if asked is not None else min(0.5 * 2.0**failures, _LONGEST_WAIT)


@contextmanager
def _open_part(path: Path) -> Iterator[_Part]:
    """Opens the part file for this process alone.

    Raises ConvertError where another process is fetching the same file.
    """
    path.touch()
    with FileIO(path, "r+") as output:
        lock(output.fileno(), f"{path.name}: another process is fetching it")
        yield _Part(output)
