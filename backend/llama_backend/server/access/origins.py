"""Which web pages may use a server: those of its own origin and of the allowed origins.

A browser adds the header `Origin` to the requests of pages from other origins, except to GET requests whose answers the
page cannot read. Current browsers also send `Sec-Fetch-Site`, which says whether the page is of the same origin. A page
can change neither header, and programs other than browsers send neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from llama_backend.errors import ForeignOrigin, InvalidRequest
from llama_backend.wire.headers import RESUMABLE, SHOULD_RETRY

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^\sA-Z/?#@,*]+)")
_METHODS = ("GET", "POST", "DELETE")
_EXPOSED = ("Retry-After", RESUMABLE, SHOULD_RETRY)


def check_origins(origins: Sequence[str]) -> None:
    """Raises InvalidRequest for an origin that is not written as browsers write it."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            text = f"{origin!r} is not an origin: write each as scheme://host[:port], such as https://chat.example"
            raise InvalidRequest(text, param="allow_origin")


def check_page(headers: Headers, allowed: Sequence[str]) -> None:
    """Raises ForeignOrigin for a request of a web page whose origin is neither this server's nor allowed."""
    origin = headers.get("origin")
    if origin not in allowed and _is_foreign(headers, origin):
        text = f"web pages of {origin or 'another site'} may not use this server; `serve --allow-origin` allows them"
        raise ForeignOrigin(text)


def _is_foreign(headers: Headers, origin: str | None) -> bool:
    """Whether a page of another origin sent the request; older browsers send only `Origin`, to compare with `Host`."""
    site = headers.get("sec-fetch-site", "none")
    if site == "none" and origin is not None:
        match = _ORIGIN.fullmatch(origin)
        return match is None or match[1] != headers.get("host", "").lower()
    return site not in ("none", "same-origin")


def with_cors(app: ASGIApp, allowed: Sequence[str]) -> ASGIApp:
    """An application that tells browsers that pages of the origins `allowed` may use it.

    All headers may be sent, since OpenAI's clients add their own. Cookies are not used: keys are sent in a header.
    """
    if not allowed:
        return app
    return CORSMiddleware(
        app,
        allow_origins=allowed,
        allow_methods=_METHODS,
        allow_headers=["*"],
        expose_headers=_EXPOSED,
        allow_private_network=True,
    )
