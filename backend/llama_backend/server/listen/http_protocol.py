"""HTTP on one connection, with limits that uvicorn leaves to a proxy, and nothing that two could read differently.

A head has a time and a size. What could be taken for another request by a proxy than by this server is refused, since
the proxy may have let another one through: RFC 9112 names the cases.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from llama_backend.errors import BackendError, HeadTooLarge, InvalidRequest
from llama_backend.wire.api import encode

HEAD_SECONDS = 15.0
"""From the connection, or a request's first byte on it, to the end of its headers."""
HEAD_BYTES = 64 * 1024
"""Of a request line with its headers, and of what is neither head nor body, such as trailers."""
HEAD_FIELDS = 128
_ONCE = frozenset(
    {
        *(b"host", b"authorization", b"origin", b"sec-fetch-site", b"content-type", b"content-length"),
        *(b"transfer-encoding", b"x-resumable", b"x-request-timeout", b"last-event-id"),
    }
)
"""Headers of which there is one: of two, others may heed the other one."""
_TOO_LARGE = f"the request line and the headers have more than {HEAD_BYTES} bytes or {HEAD_FIELDS} fields"


class BoundedProtocol(HttpToolsProtocol):
    """Closes connections whose request's head does not come to its end."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unused_bytes = 0
        """Since the last head or part of a body was complete."""
        self._deadline: asyncio.TimerHandle | None = None
        """The end of the time for a head; None where none is awaited."""
        self._refusal: BackendError | None = None
        self._working: RequestResponseCycle | None = None
        """What is answered; `cycle` is the request that came last, which may have to wait for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_work()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts what leads to nothing: a header, a trailer or a chunk's extension without end is seen by nobody else.

        After an answer the rest of its request, or whatever else comes, has as long as the head of another one.
        """
        self._unused_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unused_bytes > HEAD_BYTES:
            self._refuse(HeadTooLarge(_TOO_LARGE))
        elif self._deadline is None and self._is_answered and self.timeout_keep_alive_task is None:
            self._expect_head()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._deadline is None:
            self._expect_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a header; one that comes after the body says nothing about the request."""
        if self._deadline is None:
            return
        super().on_header(name, value)
        if len(self.headers) > HEAD_FIELDS:
            self._raise(HeadTooLarge(_TOO_LARGE))

    def on_headers_complete(self) -> None:
        self._end_head()
        self._unused_bytes = 0
        try:
            self._check_head()
        except InvalidRequest as error:
            self._raise(error)
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._working = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._unused_bytes = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is no HTTP, or no request that is served here."""
        self._refuse(self._refusal or InvalidRequest("this is no HTTP request"))

    def _check_head(self) -> None:
        """Raises InvalidRequest for a head that this server, or a proxy before it, could misread."""
        names = [name for name, _ in self.headers]
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > HEAD_BYTES:
            raise HeadTooLarge(_TOO_LARGE)
        if twice := {name.decode("latin-1") for name in _ONCE.intersection(names) if names.count(name) > 1}:
            raise InvalidRequest(f"there is more than one header {', '.join(sorted(twice))}")
        self._check_version()
        self._check_host(dict(self.headers).get(b"host"))
        self._check_framing(dict(self.headers))

    def _check_version(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise InvalidRequest(f"this server speaks HTTP/1.1, not HTTP/{version}")

    def _check_host(self, host: bytes | None) -> None:
        """Host is there, and it is that of the URL where that has one (RFC 9112, 3.2)."""
        if host is None and self.parser.get_http_version() == "1.1":
            raise InvalidRequest("the header Host is missing")
        if self.url.startswith(b"/") or self.url == b"*":
            return
        _, _, rest = self.url.partition(b"://")
        if rest.partition(b"/")[0].lower() != (host or b"").lower():
            raise InvalidRequest("the URL is of another host than the header Host")

    def _check_framing(self, headers: dict[bytes, bytes]) -> None:
        """Where the body ends is beyond doubt (RFC 9112, 6.1); after an upgrade the parser sees none."""
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise InvalidRequest("Transfer-Encoding: it can be nothing but chunked")
        has_body = coding is not None or headers.get(b"content-length", b"0").strip(b"0")
        if has_body and self.parser.should_upgrade():
            raise InvalidRequest("Upgrade: this server speaks HTTP/1.1 only; send the request without it")

    @property
    def _is_answered(self) -> bool:
        """Whether no answer is owed."""
        return self.cycle is not None and self.cycle.response_complete

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._close)

    def _end_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _raise(self, error: BackendError) -> None:
        """Ends the parsing; the parser turns all exceptions into its own, so the reason is kept beside it."""
        self._refusal = error
        raise error

    def _refuse(self, error: BackendError) -> None:
        """Says why and closes; in the midst of another answer only closes, since it would become a part of that."""
        self._end_head()
        if self._working is None or self._working.response_complete or not self._working.response_started:
            self.transport.write(_written(error))
        self._close()

    def _close(self) -> None:
        self._deadline = None
        self._end_work()
        self.transport.close()

    def _end_work(self) -> None:
        """Tells the request that is worked on that nobody reads its answer; uvicorn tells only the last one."""
        if self._working is not None and not self._working.response_complete:
            self._working.disconnected = True
            self._working.message_event.set()


def _written(error: BackendError) -> bytes:
    """A whole answer, after which the connection ends."""
    body = encode(error.to_wire())
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[error.status] + head + body
