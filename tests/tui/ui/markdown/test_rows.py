from __future__ import annotations

import pytest

from llama_chat.ui.markdown.document import MarkdownDocument
from llama_chat.ui.markdown.rows import selected_text


def selected(source: str, width: int, first: int = 0, last: int | None = None, **bounds: int) -> str:
    rows = MarkdownDocument(source).rows(width)
    return selected_text(rows[first:last], **bounds)


def test_wraps_are_undone() -> None:
    assert selected("one two three four five six seven", 12) == "one two three four five six seven"


def test_wraps_below_a_bullet_are_undone_without_the_indent() -> None:
    assert selected("- one two three four\n- five", 10) == "• one two three four\n• five"


def test_folded_code_is_joined_without_a_gap() -> None:
    assert selected("```\n" + "abcdefghij" * 3 + "\n```", 12).strip() == "abcdefghij" * 3


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ({"starts_within": 4}, "two\nthree"),
        ({"ends_at": 3}, "one two\nthr"),
        ({"starts_within": 4, "ends_at": 2}, "two\nth"),
    ],
)
def test_a_part_of_the_rows(bounds: dict[str, int], text: str) -> None:
    assert selected("one two\nthree", 40, **bounds) == text


def test_a_part_of_one_row() -> None:
    assert selected("one two three", 40, starts_within=4, ends_at=7) == "two"


def test_no_rows_are_no_text() -> None:
    assert selected_text([]) == ""
