"""One GET over HTTP, on its guard: redirects are followed by hand, and an answer is bounded in bytes and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import httpx2

from llama_convert.errors import DownloadFailed

_MOST_REDIRECTS: Final = 10
_TIMEOUT: Final = httpx2.Timeout(30.0, connect=10.0)
"""Seconds that a server may say nothing at all."""

NetworkError = (httpx2.RequestError, httpx2.InvalidURL)
"""What the library raises where a connection fails."""


@contextmanager
def opened(url: str, headers: Mapping[str, str]) -> Iterator[httpx2.Response]:
    """The answer to a GET, after redirects; its body is not read yet.

    The library leaves out the token where a redirect leads to another host. It would also read the whole body of a
    redirect, however long it is: therefore they are followed here. Nothing packed is asked for, since what a few bytes
    unpack to has no bound.

    Raises:
        DownloadFailed: the redirects have no end, or lead from HTTPS to something else.
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
            _check_redirect(request.url, response.next_request.url)
            request = response.next_request
    raise DownloadFailed(f"{host(url)} redirects more than {_MOST_REDIRECTS} times")


def _check_redirect(before: httpx2.URL, after: httpx2.URL) -> None:
    if after.scheme != "https" and after.scheme != before.scheme:
        raise DownloadFailed(f"{before.host} redirects from {before.scheme} to {after.scheme or 'nowhere'}")


def host(url: str) -> str:
    return httpx2.URL(url).host


def read_body(response: httpx2.Response, most: int, seconds: float, clock: Callable[[], float]) -> bytes:
    """The body of an answer.

    Raises:
        DownloadFailed: it has more than `most` bytes, or takes longer.
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
    """Notices a server that sends just enough not to count as silent."""

    PERIOD: Final = 60.0
    LEAST: Final = 64 << 10
    """Bytes in each period of as many seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._bytes = 0

    def too_slow(self, count: int) -> bool:
        """Whether with these `count` bytes a period ends that had too few."""
        self._bytes += count
        if self._clock() - self._start < self.PERIOD:
            return False
        slow = self._bytes < self.LEAST
        self._start, self._bytes = self._clock(), 0
        return slow
