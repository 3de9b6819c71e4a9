from __future__ import annotations

from textual.content import Content

from llama_chat.ui.join_content import join_content


def test_the_separator_stands_between_and_is_counted_right() -> None:
    separator = Content(" · ")
    assert separator.cell_length == 3
    found = join_content([Content("a"), Content.styled("漢", "bold"), Content("c")], separator)
    assert found.plain == "a · 漢 · c"
    assert found.cell_length == 10
    assert [(span.start, span.end) for span in found.spans] == [(4, 5)]


def test_nothing_joined_is_nothing() -> None:
    assert join_content([], Content("  ")).cell_length == 0
