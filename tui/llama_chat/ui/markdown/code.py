"""Code with colours, each piece of it coloured once."""

from __future__ import annotations

from functools import lru_cache

from textual.content import Content


@lru_cache(maxsize=256)
def highlighted(code: str, language: str) -> Content:
    """`code` in the colours of the theme; as it is where `language` is not known."""
    from textual.highlight import highlight

    return highlight(code, language=language) if language else Content(code)
