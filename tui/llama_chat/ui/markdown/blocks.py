"""The blocks of a document: from the parser's tree to items that lay themselves out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from textual.content import Content

from llama_chat.ui.markdown.code import highlighted
from llama_chat.ui.markdown.inline import inline
from llama_chat.ui.markdown.rows import EMPTY, NO_MARGIN, Item, Line, Margin, Rule, lines
from llama_chat.ui.markdown.table import Table

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode

_BULLETS = "•◦▪"
_CODE_PADDING = Content(" ")
_QUOTE_BAR = Content.styled("▎ ", ".markdown--line")


def blocks(nodes: Sequence[SyntaxTreeNode], margin: Margin = NO_MARGIN, spaced: bool = True) -> Iterator[Item]:
    """The items of blocks that follow each other, with an empty line between them where `spaced`."""
    for number, node in enumerate(nodes):
        if number and spaced:
            yield Line(EMPTY, margin.continued)
        yield from _BUILDERS.get(node.type, _paragraph)(node, margin if number == 0 else margin.continued)


def _paragraph(node: SyntaxTreeNode, margin: Margin) -> Iterator[Item]:
    return lines(inline(node), margin)


def _heading(node: SyntaxTreeNode, margin: Margin) -> Iterator[Item]:
    style = ".markdown--title" if node.tag in ("h1", "h2") else ".markdown--subtitle"
    return lines(inline(node).stylize(style), margin)


def _quote(node: SyntaxTreeNode, margin: Margin) -> Iterator[Item]:
    return blocks(node.children, margin.inside(_QUOTE_BAR, _QUOTE_BAR))


def _list(node: SyntaxTreeNode, margin: Margin) -> Iterator[Item]:
    spaced = _is_loose(node)
    markers = _markers(node)
    indent = Content(" " * len(markers[-1]))
    for number, (item, marker) in enumerate(zip(node.children, markers, strict=True)):
        outer = margin if number == 0 else margin.continued
        if number and spaced:
            yield Line(EMPTY, outer)
        inner = outer.inside(Content.styled(marker.rjust(len(indent)), ".markdown--marker"), indent)
        yield from blocks(item.children, inner, spaced) if item.children else [Line(EMPTY, inner)]


def _markers(node: SyntaxTreeNode) -> list[str]:
    if node.type == "bullet_list":
        return [_BULLETS[_depth(node) % len(_BULLETS)] + " "] * len(node.children)
    start = int(node.attrs.get("start", 1))
    return [f"{number}. " for number in range(start, start + len(node.children))]


def _depth(node: SyntaxTreeNode) -> int:
    """Bullet lists around this one."""
    depth = 0
    while node.parent is not None:
        node = node.parent
        depth += node.type == "bullet_list"
    return depth


def _is_loose(node: SyntaxTreeNode) -> bool:
    """Whether the source has empty lines between the items: then the parser does not hide their paragraphs."""
    return any(child.type == "paragraph" and not child.hidden for item in node.children for child in item.children)


def _code(node: SyntaxTreeNode, margin: Margin) -> Iterator[Item]:
    words = node.info.split()
    code = node.content.rstrip("\n").expandtabs(4)
    content = highlighted(code, words[0]) if words and is_closed(node) else Content(code)
    return lines(content, margin.inside(_CODE_PADDING, _CODE_PADDING), is_code=True)


def is_closed(node: SyntaxTreeNode) -> bool:
    """Whether a fence has its closing line, that is, more lines than its content and the opening line."""
    if node.type != "fence" or node.map is None:
        return True
    begin, end = node.map
    return end - begin > len(node.content.splitlines()) + 1


def _rule(node: SyntaxTreeNode, margin: Margin) -> Iterator[Item]:
    yield Rule(margin, ".markdown--line")


def _table(node: SyntaxTreeNode, margin: Margin) -> Iterator[Item]:
    yield Table.of(node, margin)


_BUILDERS: dict[str, Callable[[SyntaxTreeNode, Margin], Iterator[Item]]] = {
    "heading": _heading,
    "blockquote": _quote,
    "bullet_list": _list,
    "ordered_list": _list,
    "fence": _code,
    "code_block": _code,
    "hr": _rule,
    "table": _table,
}
