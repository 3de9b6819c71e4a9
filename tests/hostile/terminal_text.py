"""Text that would steer a terminal: sequences, directions, hidden characters, cut anywhere."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import strategies as st

from llama_chat.cli.display.output import format_table
from llama_chat.plain_text import PlainText, one_line, plain_text, table_cell
from llama_chat.ui.markdown.document import MarkdownDocument
from tests.hostile.trial import Check, Trial

_INVISIBLE = "\u00ad\u061c\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Allowed in running text: they join letters and emoji, or hint at where a line may break and which way it runs."""
_VISIBLE_FORMAT = (range(0x600, 0x606), range(0x6DD, 0x6DE), range(0x70F, 0x710), range(0x890, 0x892))
_MORE_VISIBLE_FORMAT = (range(0x8E2, 0x8E3), range(0x110BD, 0x110CE), range(0x13430, 0x13460))
"""Arabic signs above numbers, Syriac, Kaithi and hieroglyphs, which Unicode counts as formatting and everybody sees."""

_SEQUENCES = (
    "\x1b]0;title\x07",
    "\x1b]52;c;aGk=\x1b\\",
    "\x1b]8;;file:///etc/passwd\x1b\\",
    "\x1b[31m",
    "\x1b[2J",
    "\x9b6n",
    "\x9d0;title\x9c",
    "\x1bP$q q\x1b\\",
    "\x90+q544e\x9c",
    "\x1b_Gf=100\x1b\\",
    "\x1bc",
    "\r\n",
    "\r",
    "\x85",
    "\u2028",
    "&#x202e;",
    "&#13;&#10;",
    "&rlm;",
    "| a | b |\n|---|---|\n",
    "```\n",
    "[a](http://x/\u202e)",
)
_WORDS = st.one_of(
    st.sampled_from(_SEQUENCES),
    st.text(max_size=8),
    st.text(st.characters(categories=["Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"]), max_size=4),
    st.integers(0, 0x10FFFF).map(lambda code: f"&#{code};"),
)


def is_harmless(text: str) -> bool:
    """Whether a terminal only shows it: nothing that steers, nothing that turns the direction of what follows."""
    return all(_is_shown(char) for char in text)


def _is_shown(char: str) -> bool:
    kind = unicodedata.category(char)
    if char in "\n\t" or char in _INVISIBLE:
        return True
    if kind == "Cf":
        return any(ord(char) in part for part in (*_VISIBLE_FORMAT, *_MORE_VISIBLE_FORMAT))
    return kind not in ("Cc", "Cs", "Zl", "Zp")


@contextmanager
def _opened(_: Path) -> Iterator[Check]:
    yield check


def check(case: bytes) -> None:
    """The first byte says where the text is cut."""
    text = case[1:].decode("utf-8", "surrogatepass")
    at = case[0] % (len(text) + 1)
    shown = plain_text(text)
    assert is_harmless(shown)
    assert plain_text(shown) == shown
    _check_pieces([text[:at], text[at:]], shown)
    _check_pieces(list(text), shown)
    _check_rows(text)
    _check_markdown(text)


def _check_pieces(pieces: list[str], whole: str) -> None:
    plain = PlainText()
    assert "".join(map(plain.feed, pieces)) == whole


def _check_rows(text: str) -> None:
    for short in (one_line(text), table_cell(text)):
        assert is_harmless(short)
        assert not set(short) & set("\n\t")
    assert one_line(one_line(text)) == one_line(text)
    assert format_table([(text, text), ("a", text)]).count("\n") == 1


def _check_markdown(text: str) -> None:
    plain = PlainText()
    rows = MarkdownDocument(plain.feed(text)).rows(20)
    assert all(is_harmless(row.content.plain) and "\n" not in row.content.plain for row in rows)


def _case(cut: int, words: list[str]) -> bytes:
    return bytes([cut]) + "".join(words).encode("utf-8", "surrogatepass")


TERMINAL_TEXT = Trial(
    "terminal-text", st.builds(_case, st.integers(0, 255), st.lists(_WORDS, max_size=12)), _opened, 300
)
