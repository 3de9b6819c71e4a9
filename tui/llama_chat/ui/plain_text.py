"""Foreign text made safe for a terminal: what a model, a server or a clipboard sends is only ever shown."""

from __future__ import annotations

import re

_LINE_ENDS = re.compile(r"\r\n?|\u2028|\u2029")
_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f"  # C0 without tab and newline, and DEL
    "\x80-\x9f"  # C1, where 0x9b alone begins a control sequence
    "\u202a-\u202e\u2066-\u2069"  # overrides of the writing direction
    "\ud800-\udfff"  # surrogates, which no encoder takes
    "]"
)


def plain_text(text: str) -> str:
    """`text` with one kind of line end, and a visible stand-in for each character that could control a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_picture, _LINE_ENDS.sub("\n", text))


def one_line(text: str) -> str:
    """`text` as one line, for places that have no more."""
    return " ".join(plain_text(text).split())


def _picture(match: re.Match[str]) -> str:
    """Unicode's control picture (`␛` for escape) where there is one."""
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "�"
