"""A GET over HTTP from an untrusted server: redirects are checked, and an answer is bounded in bytes and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import httpx2

from llama_convert.errors import DownloadFailed

_MOST_REDIRECTS = 10
_TIMEOUT = httpx2.Timeout(30.0, connect=10.0)
"""Seconds that a server may send nothing."""

NetworkError = (httpx2.RequestError, httpx2.InvalidURL)
"""What the library raises where a connection fails."""


@contextmanager
def opened(url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
    """The answer to a GET, after redirects; its body is not read yet.

    httpx leaves out the token where a redirect leads to another host. It would also read the whole body of a redirect,
    however long it is; therefore redirects are followed here. No compressed answer is asked for, since a few bytes of
    it could unpack to any size.

    Raises DownloadFailed where there are too many redirects, or one leads from HTTPS to something else.
    """
    plain = {**headers, "Accept-Encoding": "identity"}
    with httpx2.Client(headers=plain, timeout=_TIMEOUT) as client:
        request = client.build_request("GET", url)
        for _ in range(_MOST_REDIRECTS):
            response = client.send(request, stream=True)
            try:
                if response.next_request is None:
                    yield response
                    return
            finally:
                response.close()
            check_redirect(request.url, response.next_request.url)
            request = response.next_request
    raise DownloadFailed(f"{host(url)} redirects more than {_MOST_REDIRECTS} times")


def check_redirect(before: httpx2.URL, after: httpx2.URL) -> None:
    """Raises DownloadFailed where a redirect leads to another scheme, unless it leads to HTTPS."""
    if after.scheme != "https" and after.scheme != before.scheme:
        raise DownloadFailed(f"{before.host} redirects from {before.scheme} to {after.scheme or 'nowhere'}")


def host(url: str) -> str:
    return httpx2.URL(url).host


def read_body(response: httpx2.Response, most: int, seconds: float, clock: Callable[[], float]) -> bytes:
    """The body of an answer.

    Raises DownloadFailed where it has more than `most` bytes, or takes longer than `seconds`.
    """
    end, pieces, size = clock() + seconds, [], 0
    for piece in response.iter_raw():
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise DownloadFailed(f"{response.url.host} sends more than {most} bytes where a list of files is expected")
        if clock() > end:
            raise DownloadFailed(f"{response.url.host} takes longer than {seconds:.0f} seconds to answer")
    return b"".join(pieces)


class Pace:
    """Notices a server so slow that a download would never end, although it sends often enough to avoid the timeout."""

    PERIOD = 60.0
    LEAST = 64 << 10
    """Bytes that must arrive in each period of `PERIOD` seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._bytes = 0

    def too_slow(self, count: int) -> bool:
        """Counts `count` more bytes, and returns whether a period has just ended in which too few arrived."""
        self._bytes += count
        if self._clock() - self._start < self.PERIOD:
            return False
        slow = self._bytes < self.LEAST
        self._start, self._bytes = self._clock(), 0
        return slow
