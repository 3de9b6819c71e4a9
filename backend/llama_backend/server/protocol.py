"""HTTP on one connection, with limits that uvicorn leaves to a proxy: how long a head may take, and how large it is."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 15.0
"""From the connection, or a request's first byte on it, to the end of its headers."""
HEAD_BYTES = 64 * 1024
_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose request's head does not come to its end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what comes before the end of the headers: a header without end is seen by nobody else."""
        if self._deadline is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._deadline is not None and self._head_bytes > HEAD_BYTES:
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._end_head()
        size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
        if size > HEAD_BYTES:
            raise ValueError("the headers are too large")
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP; headers that are too large have a status of their own."""
        if self.headers and sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            self._refuse()
        else:
            super().send_400_response(msg)

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._close)

    def _end_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self) -> None:
        self._end_head()
        self.transport.write(_TOO_LARGE)
        self._close()

    def _close(self) -> None:
        self._deadline = None
        self.transport.close()
