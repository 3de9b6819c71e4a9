"""Finds the account of a request. Keys are needed on TCP, not on the Unix socket.

A server without keys answers requests from its own machine only. Web pages are refused unless their origin is allowed,
on the Unix socket too, since it may be forwarded to a port.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.requests import Request

from llama_backend.account import LOCAL, Account
from llama_backend.errors import Forbidden, Unauthorized
from llama_backend.server.access.api_keys import KeyFile
from llama_backend.server.access.origins import check_origins, check_page
from llama_backend.server.listen.sockets import is_loopback

_HOST = re.compile(r"\[([^\[\]]*)\](?::\d*)?|([^\[\]:]*)(?::\d*)?")
"""A Host header: an IPv6 address in brackets or a name, and a port."""


class Authenticator:
    """Finds the account of a request; web pages of the `origins` may send requests as well.

    Raises InvalidRequest for an origin that is not written as browsers write it.
    """

    def __init__(self, keys: KeyFile | None, origins: Sequence[str] = ()) -> None:
        check_origins(origins)
        self._keys = keys
        self._origins = origins

    def check(self, request: Request) -> Account:
        """The account of a request; raises Unauthorized without a valid key, Forbidden, and ForeignOrigin."""
        check_page(request.headers, self._origins)
        if is_unix(request):
            return LOCAL
        if self._keys is None:
            self._check_host(request)
            return LOCAL
        account = self._keys.find(bearer(request))
        if account is None:
            raise Unauthorized("a valid API key is needed: send it as 'Authorization: Bearer KEY'")
        return account

    @staticmethod
    def _check_host(request: Request) -> None:
        """Refuses names of other hosts, since a web page could make the name of its own host point to this machine."""
        host = request.headers.get("host", "")
        match = _HOST.fullmatch(host)
        if match is None or not is_loopback(match[1] or match[2] or ""):
            raise Forbidden(
                f"a server without keys answers requests to localhost only, not to {host!r}; use localhost in the URL"
            )


def is_unix(request: Request) -> bool:
    """Whether a request came over the Unix socket."""
    server = request.scope.get("server")
    return server is not None and server[1] is None


def bearer(request: Request) -> str:
    """The API key in a request's header; empty where there is none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
