"""Joining pieces of Textual's Content, in place of `Content.join`."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content


def join_content(parts: Iterable[Content], separator: Content) -> Content:
    """`parts` with `separator` between them.

    `separator.join(parts)` of Textual 8.2.8 is one separator too wide when the width of the separator was asked for
    before.
    """
    pieces: list[Content] = []
    for part in parts:
        pieces += [separator, part] if pieces else [part]
    return Content("").join(pieces)
