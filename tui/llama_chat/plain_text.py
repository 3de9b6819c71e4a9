"""Makes text from outside safe for a terminal, so that the terminal shows it and never acts on it.

Such text comes from a model, a server, the name of a file or the clipboard. This is the only place that decides what
is safe, for the commands and for the chat: text for a screen goes through `PlainText` or `plain_text`, and text that
has one row there goes through `one_line` or `table_cell`.
"""

from __future__ import annotations

import re

_LINE_ENDS = re.compile("\r\n?|[\u2028\u2029]")
_UNSAFE = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f"  # C0 without tab and newline, and DEL
    "\x80-\x9f"  # C1, where 0x9b alone begins a control sequence
    "\u202a-\u202e\u2066-\u2069"  # embeddings, overrides and isolates of the writing direction
    "\u180e\u2061-\u2065\u206a-\u206f\ufff0-\ufffb"  # other invisible marks
    "\ud800-\udfff"  # surrogates, which no encoder takes
    "\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # invisible marks of shorthand and musical notation
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"  # tags, in which a whole text can hide
    "]"
)
_MARKS = re.compile("[\u00ad\u061c\u200b\u200e\u200f\u2060\ufeff]")
"""Invisible, but useful in running text: they say where a line can break and which way it runs. In a row they would
move what stands beside them, or make two names look the same."""


class PlainText:
    """Text that comes in pieces; what is shown does not depend on where it was cut."""

    def __init__(self) -> None:
        self._ends_line = False
        """Whether the last character was a carriage return: a newline after it belongs to the same line end."""

    def feed(self, piece: str) -> str:
        """The next piece as it can be shown."""
        if self._ends_line and piece:
            piece = piece.removeprefix("\n")
            self._ends_line = False
        self._ends_line = self._ends_line or piece.endswith("\r")
        return plain_text(piece)


def plain_text(text: str) -> str:
    """`text` with one kind of line end, and a visible stand-in for each character that could control a terminal."""
    if text.isascii() and text.isprintable():
        return text
    return _UNSAFE.sub(_picture, _LINE_ENDS.sub("\n", text))


def one_line(text: str) -> str:
    """`text` as one line with single spaces."""
    return " ".join(_MARKS.sub("", plain_text(text)).split())


def table_cell(text: str) -> str:
    """`text` for one row of a table, with all its spaces, since those of a path count."""
    return _MARKS.sub("", re.sub("[\n\t]", " ", plain_text(text)))


def _picture(match: re.Match[str]) -> str:
    """Unicode's control picture (`␛` for escape) where there is one."""
    code = ord(match[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else "�"
