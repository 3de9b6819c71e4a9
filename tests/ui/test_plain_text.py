from __future__ import annotations

import pytest

from llama_chat.ui.plain_text import one_line, plain_text


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
        ("漢字 é 👩‍🚀", "漢字 é 👩‍🚀"),
    ],
)
def test_control_characters_become_visible(text: str, shown: str) -> None:
    assert plain_text(text) == shown


def test_one_line_has_no_line_ends() -> None:
    assert one_line("a\r\n  b\tc\x1b") == "a b c␛"
