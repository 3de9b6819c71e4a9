"""A document that grows: complete blocks stay laid out, and only the last block is parsed again."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from llama_chat.ui.markdown.blocks import blocks
from llama_chat.ui.markdown.rows import EMPTY, Item, Line, Row

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.tree import SyntaxTreeNode


class MarkdownDocument:
    """Markdown source and its rows.

    A block of CommonMark is complete as soon as another one begins after it, so text that is appended can only change
    the last block. It can also change the one before, as long as the line on which the last one begins is unfinished:
    a `*` may become a list or continue a paragraph. The one exception is ignored: a link reference that is defined late
    would also change links in blocks that were complete before.
    """

    def __init__(self, source: str = "") -> None:
        self.source = ""
        self._settled: list[Item] = []
        self._tail: list[Item] = []
        self._tail_start = 0
        """The position in `source` from which blocks may still change."""
        self._width = 0
        self._settled_rows: list[Row] = []
        self._rows: list[Row] | None = None
        if source:
            self.append(source)

    def append(self, text: str) -> None:
        """Adds to the end of the source."""
        self.source += text
        tail = self.source[self._tail_start :]
        nodes = parse_blocks(tail)
        complete = _complete(tail, nodes)
        if complete:
            self._settle(nodes[:complete])
            self._tail_start += _offset(tail, nodes[complete])
        self._tail = self._items(nodes[complete:])
        self._rows = None

    def rows(self, width: int) -> list[Row]:
        """The document as rows of `width` cells; the caller must not change the list."""
        if width != self._width:
            self._width, self._rows = width, None
            self._settled_rows = _laid_out(self._settled, width)
        if self._rows is None:
            self._rows = self._settled_rows + _laid_out(self._tail, width)
        return self._rows

    def _settle(self, nodes: list[SyntaxTreeNode]) -> None:
        items = self._items(nodes)
        self._settled += items
        self._settled_rows += _laid_out(items, self._width)

    def _items(self, nodes: list[SyntaxTreeNode]) -> list[Item]:
        """The items of blocks that follow the settled ones."""
        gap: list[Item] = [Line(EMPTY)] if self._settled and nodes else []
        return gap + list(blocks(nodes))


def _laid_out(items: list[Item], width: int) -> list[Row]:
    return [row for item in items for row in item.rows(width)] if width else []


def _complete(source: str, nodes: list[SyntaxTreeNode]) -> int:
    """How many blocks at the start of `nodes` stay the same whatever is appended to `source`."""
    unfinished_line = source.count("\n")
    begins_there = bool(nodes) and nodes[-1].map is not None and nodes[-1].map[0] == unfinished_line
    return max(len(nodes) - (2 if begins_there else 1), 0)


def _offset(source: str, node: SyntaxTreeNode) -> int:
    """The position in `source` at which a block begins."""
    first_line = node.map[0] if node.map else 0
    return sum(len(line) + 1 for line in source.split("\n")[:first_line])


def parse_blocks(source: str) -> list[SyntaxTreeNode]:
    """The top-level blocks of Markdown."""
    from markdown_it.tree import SyntaxTreeNode

    return SyntaxTreeNode(_parser().parse(source)).children


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    """CommonMark with tables and strikethrough; HTML is shown as text, and bare URLs are not made links."""
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
