from __future__ import annotations

import pytest

from llama_chat.ui.markdown.document import MarkdownDocument
from llama_chat.ui.markdown.table import fitted


def shown(source: str, width: int) -> list[str]:
    return [row.content.plain.rstrip() for row in MarkdownDocument(source).rows(width)]


SOURCE = """| Name | Says | N |
|:-----|:----:|--:|
| cat  | a long meow | 1 |
| dog  | woof | 22 |
"""


def test_columns_are_as_wide_as_they_need() -> None:
    assert shown(SOURCE, 40) == [
        "Name │    Says     │  N",
        "─────┼─────────────┼───",
        "cat  │ a long meow │  1",
        "dog  │    woof     │ 22",
    ]


def test_a_narrow_table_wraps_its_widest_column() -> None:
    assert shown(SOURCE, 20) == [
        "Name │   Says   │  N",
        "─────┼──────────┼───",
        "cat  │  a long  │  1",
        "     │   meow   │",
        "dog  │   woof   │ 22",
    ]


def test_rows_with_missing_cells_are_filled() -> None:
    assert shown("| a | b |\n|---|---|\n| 1 |\n", 20)[-1] == "1 │"


def test_a_table_that_cannot_fit_is_cut() -> None:
    source = "|" + "a|" * 20 + "\n|" + "-|" * 20 + "\n"
    assert all(len(row) <= 10 for row in shown(source, 10))


def test_a_table_in_a_list() -> None:
    assert shown("- x\n\n  | a |\n  |---|\n  | b |\n", 20) == ["• x", "", "  a", "  ─", "  b"]


@pytest.mark.parametrize(
    ("widths", "room", "least", "fitting"),
    [
        ([3, 4], 10, [], [3, 4]),
        ([3, 9], 10, [], [3, 7]),
        ([8, 8], 10, [], [5, 5]),
        ([8, 8], 11, [], [5, 6]),
        ([2, 20, 20], 12, [], [2, 5, 5]),
        ([9, 9], 10, [8, 1], [8, 2]),
        ([9, 9], 10, [8, 8], [8, 8]),
        ([0, 0], 10, [], [1, 1]),
        ([5, 5], 0, [], [1, 1]),
    ],
)
def test_the_widest_columns_give_way(widths: list[int], room: int, least: list[int], fitting: list[int]) -> None:
    assert fitted(widths, room, least) == fitting
