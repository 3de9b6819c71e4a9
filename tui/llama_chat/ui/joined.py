"""Putting Content together."""

from __future__ import annotations

from collections.abc import Iterable

from textual.content import Content


def joined(parts: Iterable[Content], joint: Content) -> Content:
    """`parts` with `joint` between them.

    `joint.join(parts)` of Textual 8.2.8 counts the width of one joint too many when that width was asked for before.
    """
    pieces: list[Content] = []
    for part in parts:
        pieces += [joint, part] if pieces else [part]
    return Content("").join(pieces)
