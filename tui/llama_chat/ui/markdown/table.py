"""Tables: columns as wide as they need, or narrower and wrapped."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal, cast

from rich.cells import cell_len
from textual.content import Content

from llama_chat.ui.join_content import join_content
from llama_chat.ui.markdown.inline import inline
from llama_chat.ui.markdown.rows import EMPTY, NO_MARGIN, Margin, Row

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode

Alignment = Literal["left", "center", "right"]
Cells = Sequence[Content]

_GAP = Content.styled(" │ ", ".markdown--line")


@dataclass(frozen=True, slots=True)
class Table:
    """A header and rows of cells, all with as many cells as there are alignments."""

    header: Cells
    body: Sequence[Cells]
    alignments: Sequence[Alignment]
    margin: Margin = NO_MARGIN

    @classmethod
    def of(cls, node: SyntaxTreeNode, margin: Margin) -> Table:
        """The table that a parsed `table` node describes."""
        rows = [row for group in node.children for row in group.children]
        header, *body = [[inline(cell) for cell in row.children] for row in rows]
        return cls(header, body, [_alignment(cell) for cell in rows[0].children], margin)

    def rows(self, width: int) -> list[Row]:
        room = width - self.margin.first.cell_length - _GAP.cell_length * (len(self.header) - 1)
        widths = self._widths(room)
        header = [cell.stylize("bold") for cell in self.header]
        rule = Content.styled("─┼─".join("─" * width for width in widths), ".markdown--line")
        rows = [*self._cell_rows(header, widths), rule]
        for cells in self.body:
            rows.extend(self._cell_rows(cells, widths))
        margins = [self.margin.first, *[self.margin.rest] * (len(rows) - 1)]
        return [Row((margin + row).truncate(width)) for margin, row in zip(margins, rows, strict=True)]

    def _widths(self, room: int) -> list[int]:
        """Column widths: words stay whole as long as that is possible."""
        columns = list(zip(self.header, *self.body, strict=True))
        natural = [max(cell.cell_length for cell in column) for column in columns]
        words = [max(_longest_word(cell) for cell in column) for column in columns]
        return fitted(fitted(natural, room, words), room)

    def _cell_rows(self, cells: Cells, widths: Sequence[int]) -> Iterator[Content]:
        """The rows that one row of cells takes, as many as its highest cell has."""
        columns = [cell.wrap(width) for cell, width in zip(cells, widths, strict=True)]
        for pieces in zip_longest(*columns, fillvalue=EMPTY):
            aligned = map(_padded, pieces, widths, self.alignments)
            yield join_content(aligned, _GAP)


def fitted(widths: Sequence[int], room: int, least: Sequence[int] = ()) -> list[int]:
    """Widths that sum to at most `room`, as far as none falls below its `least`: the widest give way first."""
    fitting = [max(width, 1) for width in widths]
    floors = least or [1] * len(fitting)
    while (excess := sum(fitting) - room) > 0:
        high = [at for at, width in enumerate(fitting) if width > floors[at]]
        if not high:
            break
        widest = max(fitting[at] for at in high)
        for at in [at for at in high if fitting[at] == widest][:excess]:
            fitting[at] -= 1
    return fitting


def _longest_word(cell: Content) -> int:
    return max((cell_len(word) for word in cell.plain.split()), default=1)


def _padded(cell: Content, width: int, alignment: Alignment) -> Content:
    spare = max(width - cell.cell_length, 0)
    left = {"left": 0, "center": spare // 2, "right": spare}[alignment]
    return cell.pad(left, spare - left)


def _alignment(cell: SyntaxTreeNode) -> Alignment:
    name = str(cell.attrs.get("style", "")).removeprefix("text-align:")
    return cast(Alignment, name) if name in ("center", "right") else "left"
