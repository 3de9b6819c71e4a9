"""Markdown that grows: only the part that changes is laid out again."""

from __future__ import annotations

from typing import ClassVar

from textual.content import Content
from textual.geometry import Size
from textual.selection import Selection
from textual.strip import Strip
from textual.style import Style
from textual.visual import Visual
from textual.widget import Widget

from llama_chat.plain_text import PlainText
from llama_chat.ui.markdown.document import MarkdownDocument
from llama_chat.ui.markdown.rows import Row, selected_text


class MarkdownView(Widget):
    """Shows a MarkdownDocument; only the rows that are on the screen are drawn."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "markdown--code",
        "markdown--fence",
        "markdown--line",
        "markdown--marker",
        "markdown--subtitle",
        "markdown--target",
        "markdown--title",
    }
    DEFAULT_CSS = """
    MarkdownView {
        height: auto;
        width: 1fr;
        .markdown--code { color: $text-warning; }
        .markdown--fence { background: $surface; color: $foreground; }
        .markdown--line { color: $foreground 30%; }
        .markdown--marker { color: $text-primary; }
        .markdown--subtitle { text-style: bold; }
        .markdown--target { color: $text-muted; }
        .markdown--title { color: $text-primary; text-style: bold; }
    }
    """

    def __init__(self, source: str = "") -> None:
        super().__init__()
        self._plain = PlainText()
        self._document = MarkdownDocument(self._plain.feed(source))

    @property
    def source(self) -> str:
        return self._document.source

    def append(self, text: str) -> None:
        """Adds to the end of the source."""
        height = len(self._rows)
        self._document.append(self._plain.feed(text))
        self.refresh(layout=len(self._rows) != height)

    @property
    def _rows(self) -> list[Row]:
        return self._document.rows(self.size.width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._document.rows(width))

    def render_line(self, y: int) -> Strip:
        rows = self._rows
        if y >= len(rows):
            return Strip.blank(self.size.width, self.visual_style.rich_style)
        row = rows[y]
        content = self._with_selection(row.content, y)
        [strip] = Visual.to_strips(self, content, self.size.width, 1, self._style(row), apply_selection=False, pad=True)
        return strip.apply_offsets(0, y)

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        rows = self._rows
        start, end = selection
        first = start.y if start else 0
        last = end.y if end else len(rows)
        text = selected_text(rows[first : last + 1], start.x if start else 0, end.x if end else None)
        return text, "\n"

    def _style(self, row: Row) -> Style:
        return self.get_visual_style("markdown--fence") if row.is_code else self.visual_style

    def _with_selection(self, content: Content, y: int) -> Content:
        selection = self.text_selection
        span = selection.get_span(y) if selection else None
        if span is None:
            return content
        start, end = span
        style = Style.from_styles(self.screen.get_component_styles("screen--selection"))
        return content.stylize(style, start, None if end == -1 else end)
