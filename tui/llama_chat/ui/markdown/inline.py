"""The inside of a paragraph: emphasis, code, links."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content, Span

from llama_chat.plain_text import plain_text

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode

_STYLES = {
    "em": "italic",
    "strong": "bold",
    "s": "strike",
    "link": "underline",
    "code_inline": ".markdown--code",
    "image": ".markdown--target",
}


def inline(node: SyntaxTreeNode) -> Content:
    """The text below `node` with its styles.

    A line break in the source is one on the screen: models break verses and addresses, and hardly ever wrap prose.
    Links show their targets and cannot be clicked, so that nobody opens an address that a model made up.
    """
    writer = _Writer()
    writer.write(node)
    return Content(writer.text, writer.spans)


class _Writer:
    """Walks a tree of inline nodes."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: list[Span] = []

    def write(self, node: SyntaxTreeNode) -> None:
        start = len(self.text)
        self._write_text(node)
        if node.type != "image":
            for child in node.children:
                self.write(child)
        if style := _STYLES.get(node.type):
            self.spans.append(Span(start, len(self.text), style))
        if node.type == "link":
            self._write_target(str(node.attrs.get("href", "")), self.text[start:])

    def _write_text(self, node: SyntaxTreeNode) -> None:
        if node.type in ("softbreak", "hardbreak"):
            self.text += "\n"
        elif node.type == "image":
            self._add(f"[image: {node.content or node.attrs.get('src', '')}]")
        elif not node.children:
            self._add(node.content)

    def _add(self, text: str) -> None:
        """Neutralises the text only here, after parsing: `&#x202e;` in the source has now become the character."""
        self.text += plain_text(text).replace("\n", " ")

    def _write_target(self, target: str, text: str) -> None:
        if target.removeprefix("mailto:") in ("", text):
            return
        start = len(self.text)
        self._add(f" ({target})")
        self.spans.append(Span(start, len(self.text), ".markdown--target"))
