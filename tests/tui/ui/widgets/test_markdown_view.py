"""The widget around the rows: height, drawing, selection."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Offset
from textual.selection import SELECT_ALL, Selection

from llama_chat.ui.widgets.markdown_view import MarkdownView


class ViewApp(App[None]):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.view = MarkdownView(source)

    def compose(self) -> ComposeResult:
        yield self.view


async def test_is_as_high_as_its_rows() -> None:
    app = ViewApp("one\n\ntwo")
    async with app.run_test(size=(20, 10)) as pilot:
        assert app.view.size.height == 3
        app.view.append(" three four five six seven")
        await pilot.pause()
        assert app.view.size.height == 4
        await pilot.resize_terminal(12, 10)
        await pilot.pause()
        assert app.view.size.height == 5


async def test_every_row_is_as_wide_as_the_view() -> None:
    app = ViewApp("one\n\n```\ncode\n```\n\n| a | b |\n|---|---|\n| 漢字 | 2 |\n")
    async with app.run_test(size=(20, 12)):
        widths = {app.view.render_line(y).cell_length for y in range(app.view.size.height + 1)}
        assert widths == {20}


async def test_only_rows_in_sight_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: set[int] = set()
    real = MarkdownView.render_line
    monkeypatch.setattr(MarkdownView, "render_line", lambda self, y: drawn.add(y) or real(self, y))  # type: ignore[func-returns-value]
    async with ViewApp("line\n\n" * 500).run_test(size=(20, 10)):
        assert max(drawn) < 20


@pytest.mark.parametrize(
    ("selection", "text"),
    [
        (SELECT_ALL, "• one two three\n• four"),
        (Selection(Offset(2, 0), None), "one two three\n• four"),
        (Selection(None, Offset(3, 0)), "• o"),
        (Selection(Offset(2, 1), Offset(4, 2)), "three\n• fo"),
        (Selection(Offset(0, 9), None), ""),
    ],
)
async def test_what_is_selected(selection: Selection, text: str) -> None:
    app = ViewApp("- one two three\n- four")
    async with app.run_test(size=(10, 10)):
        found = app.view.get_selection(selection)
        assert found
        assert found[0] == text


async def test_a_selection_is_shown() -> None:
    app = ViewApp("one two")
    async with app.run_test(size=(20, 10)) as pilot:
        before = app.view.render_line(0)
        app.screen.selections = {app.view: Selection(Offset(0, 0), Offset(3, 0))}
        await pilot.pause()
        marked = app.view.render_line(0)
        assert marked.text == before.text
        assert marked != before


async def test_another_theme_recolours() -> None:
    app = ViewApp("```python\nx = 1\n```")
    async with app.run_test(size=(20, 10)) as pilot:
        before = app.view.render_line(0)
        app.theme = "textual-light"
        await pilot.pause()
        assert app.view.render_line(0) != before
