"""Web pages: none may use a server but those of its own origin and of the origins that an option allows.

A browser sends the header `Origin` with all that a page of another origin asks for except what it could show anyway,
and browsers of today say in `Sec-Fetch-Site` how the page is related; no page can change either. Programs send neither.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from llama_backend.errors import ForeignOrigin, InvalidRequest

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([^\sA-Z/?#@,*]+)")
_METHODS = ("GET", "POST", "DELETE")
_EXPOSED = ("Retry-After", "X-Resumable", "X-Should-Retry")


def check_origins(origins: Sequence[str]) -> None:
    """Raises InvalidRequest for what is no origin as browsers write it."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            text = f"{origin!r} is no origin: name each as scheme://host[:port], such as https://chat.example"
            raise InvalidRequest(text, param="allow_origin")


def check_page(headers: Headers, allowed: Sequence[str]) -> None:
    """Raises ForeignOrigin where a page asks that is neither of this server nor of an origin that is allowed."""
    origin = headers.get("origin")
    if origin not in allowed and _is_foreign(headers, origin):
        text = f"web pages of {origin or 'another site'} may not use this server; `serve --allow-origin` lets them"
        raise ForeignOrigin(text)


def _is_foreign(headers: Headers, origin: str | None) -> bool:
    """What the browser says counts; one that does not say it sends an origin, which is to be the host that it asked."""
    site = headers.get("sec-fetch-site", "none")
    if site == "none" and origin is not None:
        match = _ORIGIN.fullmatch(origin)
        return match is None or match[1] != headers.get("host", "").lower()
    return site not in ("none", "same-origin")


def with_cors(app: ASGIApp, allowed: Sequence[str]) -> ASGIApp:
    """An application that tells browsers that pages of the origins `allowed` may use it; keys go in a header.

    All headers may be sent, since clients of OpenAI add their own; there are no cookies.
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
