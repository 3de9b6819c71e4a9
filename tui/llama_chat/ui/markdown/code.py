"""Code with colours; the result is kept, so that code is highlighted only once."""

from __future__ import annotations

from functools import lru_cache

from textual.content import Content


@lru_cache(maxsize=256)
def highlighted(code: str, language: str) -> Content:
    """`code` in the colours of the theme; without colours where `language` is unknown."""
    from textual.highlight import highlight

    return highlight(code, language=language) if language else Content(code)
