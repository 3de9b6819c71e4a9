"""Any text is made safe for a terminal."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from llama_chat.plain_text import PlainText, one_line, plain_text, table_cell
from tests.hostile.terminal_text import is_harmless


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("dos\r\nmac\runix\n", "dos\nmac\nunix\n"),
        ("\x1b]52;c;aGk=\x07", "␛]52;c;aGk=␇"),
        ("\x1b[31mred", "␛[31mred"),
        ("\x9b31m", "�31m"),
        ("a\x7fb\x00", "a␡b␀"),
        ("abc\u202etxt", "abc�txt"),
        ("one\u2028two", "one\ntwo"),
        ("half \ud83d", "half �"),
        ("hidden\U000e0068\U000e0069", "hidden��"),
        ("漢字 é 👩‍🚀", "漢字 é 👩‍🚀"),
        ("می‌خواهم 葛\U000e0100 ខ្មែរ\u200bភាសា", "می‌خواهم 葛\U000e0100 ខ្មែរ\u200bភាសា"),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert plain_text(text) == shown


def test_every_character_is_harmless_or_becomes_so() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    assert [hex(ord(char)) for char in every if not is_harmless(plain_text(char))] == []
    visible = [char for char in every if unicodedata.category(char)[0] in "LMNPS" or char in " \n\t"]
    assert [hex(ord(char)) for char in visible if plain_text(char) != char] == []


def test_one_line_has_no_line_ends() -> None:
    assert one_line("a\r\n  b\tc\x1b") == "a b c␛"
    assert one_line("a \u200b b\u200f\n") == "a b"


def test_a_cell_keeps_its_spaces() -> None:
    assert table_cell("/my  folder/a\r\nb\tc\u202e\u200f") == "/my  folder/a b c�"


def test_a_line_end_that_comes_in_two_pieces_is_one() -> None:
    plain = PlainText()
    assert [plain.feed(piece) for piece in ("a\r", "", "\nb\r", "c", "\r", "\n", "\n")] == [
        "a\n",
        "",
        "b\n",
        "c",
        "\n",
        "",
        "\n",
    ]
