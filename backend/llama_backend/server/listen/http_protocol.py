"""HTTP on one connection, with limits that uvicorn leaves to a proxy.

A request's head (its first line and its headers) is limited in time and size. A request that a proxy could understand
differently than this server is refused, since the proxy would then have checked another request than the one that is
served (request smuggling); RFC 9112 lists the cases.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from llama_backend.errors import BackendError, HeadTooLarge, InvalidRequest
from llama_backend.wire.api import encode
from llama_backend.wire.headers import LAST_EVENT_ID, REQUEST_TIMEOUT, RESUMABLE

HEAD_SECONDS = 15.0
"""The time for a head, counted from the connection or from the first byte of a later request on it."""
HEAD_BYTES = 64 * 1024
"""The most bytes of a head, and of bytes that belong neither to a head nor to a body, such as trailers."""
HEAD_FIELDS = 128
_ONCE = frozenset(
    {
        *(b"host", b"authorization", b"origin", b"sec-fetch-site", b"content-type", b"content-length"),
        b"transfer-encoding",
        *(name.lower().encode() for name in (RESUMABLE, REQUEST_TIMEOUT, LAST_EVENT_ID)),
    }
)
"""Headers that may come only once: where there are two, a proxy might use the one that this server does not use."""
_TOO_LARGE = f"the request line and the headers have more than {HEAD_BYTES} bytes or {HEAD_FIELDS} fields; send less"


class BoundedProtocol(HttpToolsProtocol):
    """Refuses heads that are too large, too slow or ambiguous, and closes their connections."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unused_bytes = 0
        """Bytes received since the last complete head or part of a body."""
        self._deadline: asyncio.TimerHandle | None = None
        """The timer that ends the wait for a head; None while no head is awaited."""
        self._refusal: BackendError | None = None
        self._working: RequestResponseCycle | None = None
        """The request that is being answered; `cycle` is the latest request, which may be waiting for this one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head()
        self._end_work()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Limits the bytes that complete neither a head nor a part of a body, such as an endless header or trailer.

        After an answer, the rest of its request may take as long as the head of a new request.
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
        """Takes a header; trailers, which come after the body, are ignored."""
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
        """Refuses bytes that are not HTTP, or a request that `_raise` has refused."""
        self._refuse(self._refusal or InvalidRequest("this is not an HTTP request; send HTTP/1.1"))

    def _check_head(self) -> None:
        """Raises InvalidRequest for a head that is too large or that a proxy could understand differently."""
        names = [name for name, _ in self.headers]
        if sum(len(name) + len(value) for name, value in self.headers) + len(self.url) > HEAD_BYTES:
            raise HeadTooLarge(_TOO_LARGE)
        if twice := {name.decode("latin-1") for name in _ONCE.intersection(names) if names.count(name) > 1}:
            raise InvalidRequest(f"{', '.join(sorted(twice))}: send this header only once")
        self._check_version()
        self._check_host(dict(self.headers).get(b"host"))
        self._check_framing(dict(self.headers))

    def _check_version(self) -> None:
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise InvalidRequest(f"HTTP/{version} is not supported; send HTTP/1.1")

    def _check_host(self, host: bytes | None) -> None:
        """Raises InvalidRequest where Host is missing or differs from the host in the URL (RFC 9112, 3.2)."""
        if host is None and self.parser.get_http_version() == "1.1":
            raise InvalidRequest("Host: this header is missing; HTTP/1.1 needs it")
        if self.url.startswith(b"/") or self.url == b"*":
            return
        _, _, rest = self.url.partition(b"://")
        if rest.partition(b"/")[0].lower() != (host or b"").lower():
            raise InvalidRequest("Host: the URL names another host than this header; make them the same")

    def _check_framing(self, headers: dict[bytes, bytes]) -> None:
        """Raises InvalidRequest where the end of the body is ambiguous (RFC 9112, 6.1).

        The parser reads no body after a request for an upgrade, so that such a request must have none.
        """
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            raise InvalidRequest("Transfer-Encoding: only chunked is supported")
        has_body = coding is not None or headers.get(b"content-length", b"0").strip(b"0")
        if has_body and self.parser.should_upgrade():
            raise InvalidRequest("Upgrade: only HTTP/1.1 is supported; send the request without this header")

    @property
    def _is_answered(self) -> bool:
        """Whether the latest request has been answered completely."""
        return self.cycle is not None and self.cycle.response_complete

    def _expect_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self._close)

    def _end_head(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _raise(self, error: BackendError) -> None:
        """Ends the parsing with an error, which is kept, since the parser replaces all exceptions by its own."""
        self._refusal = error
        raise error

    def _refuse(self, error: BackendError) -> None:
        """Closes the connection, after an error unless that would become part of an answer that is being sent."""
        self._end_head()
        if self._working is None or self._working.response_complete or not self._working.response_started:
            self.transport.write(_written(error))
        self._close()

    def _close(self) -> None:
        self._deadline = None
        self._end_work()
        self.transport.close()

    def _end_work(self) -> None:
        """Tells the request that is being answered that its client is gone; uvicorn only tells the latest request."""
        if self._working is not None and not self._working.response_complete:
            self._working.disconnected = True
            self._working.message_event.set()


def _written(error: BackendError) -> bytes:
    """A whole HTTP response, after which the connection is closed."""
    body = encode(error.to_wire())
    head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
    return STATUS_LINE[error.status] + head + body
