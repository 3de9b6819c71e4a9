"""Who may ask: anybody on the Unix socket, whoever has a key on TCP, and without keys only this machine."""

from __future__ import annotations

import hmac
import re
from pathlib import Path

from starlette.requests import Request

from llama_backend.errors import Forbidden, InvalidRequest, Unauthorized
from llama_backend.server.sockets import is_loopback

_HOST = re.compile(r"\[([^\[\]]*)\](?::\d*)?|([^\[\]:]*)(?::\d*)?")
"""A Host header: an IPv6 address in brackets or a name, and a port."""


class KeyFile:
    """API keys from a file, one a line; lines that begin with `#` do not count.

    The file is read again when it changes; while it cannot be read, the keys stay as they were.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._keys: list[bytes] = []
        self._refresh()
        if not self._keys:
            raise InvalidRequest(f"{path}: there is no key in this file")

    def allows(self, key: str) -> bool:
        """Whether the key, as a header has it, is one of them; takes the same time for all wrong ones."""
        self._refresh()
        given = key.encode("latin-1", "replace")
        return sum(hmac.compare_digest(given, known) for known in self._keys) > 0

    def _refresh(self) -> None:
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                lines = map(str.strip, self._path.read_text("utf-8").splitlines())
                self._keys = [line.encode() for line in lines if line and not line.startswith("#")]
                self._stamp = stamp
        except (OSError, UnicodeDecodeError) as error:
            if self._stamp is None:
                reason = (error.strerror if isinstance(error, OSError) else None) or error
                raise InvalidRequest(f"{self._path}: cannot be read: {reason}") from error


class Gate:
    """Lets a request through or raises Unauthorized or Forbidden."""

    def __init__(self, keys: KeyFile | None) -> None:
        self._keys = keys

    def check(self, request: Request) -> None:
        if is_unix(request):
            return
        if self._keys is None:
            self._check_host(request)
        elif not self._keys.allows(_bearer(request)):
            text = "a valid API key is needed: send it as 'Authorization: Bearer KEY'"
            raise Unauthorized(text)

    @staticmethod
    def _check_host(request: Request) -> None:
        """Without a key the Host must be this machine, so that no web page can reach it under another name."""
        host = request.headers.get("host", "")
        match = _HOST.fullmatch(host)
        if match is None or not is_loopback(match[1] or match[2] or ""):
            raise Forbidden(f"a server without a key answers for localhost only, not for {host!r}")


def is_unix(request: Request) -> bool:
    """Whether a request came over the Unix socket."""
    server = request.scope.get("server")
    return server is not None and server[1] is None


def _bearer(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
