"""The documents of the repository, taken apart: blocks of commands, inline code, links and headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = next(parent for parent in Path(__file__).parents if (parent / "pyproject.toml").exists())
_PLACES = ("*.md", "container/README.md", "docs/**/*.md")
_NOT_FOR_READERS = {"CHANGELOG.md"}
_SHELLS = {"sh", "console"}
_PUNCTUATION = re.compile(r"[^\w\- ]")
_WORDS_OF_HTML = re.compile(r'(?:id|name)="([^"]+)"')


class Mark(Enum):
    """What the first comment line of a block tells the reader, and what the tests therefore do with it."""

    NONE = ""
    """Each command is run, and has to end as it should."""
    CHAT = r"# (Opens|打开|会打开)"
    """Each command opens the chat in a terminal, which is then left."""
    SERVER = r"# (Runs (until|in the foreground)|一直运行|在前台运行|前台运行)"
    """The last command serves until it is interrupted, for the commands further down in the document."""
    SKIPPED = r"# (Needs |Takes |需要|需时|耗时|约需)"
    """Not run: it needs what a test does not have."""


@dataclass(frozen=True)
class Block:
    """A fenced block of shell commands."""

    language: str
    text: str
    line: int
    """Of its first line in the document, counted from 1."""

    @property
    def mark(self) -> Mark:
        first = self.text.lstrip().removeprefix("$ ").split("\n", 1)[0]
        return next((mark for mark in Mark if mark.value and re.match(mark.value, first)), Mark.NONE)

    @property
    def commands_text(self) -> str:
        """What the reader types: of a transcript only the lines after the prompt."""
        if self.language != "console":
            return self.text
        typed = (line[2:] for line in self.text.splitlines() if line.startswith(("$ ", "> ")))
        return "\n".join(typed) + "\n"


@dataclass(frozen=True)
class Document:
    """One Markdown file."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    @property
    def blocks(self) -> list[Block]:
        """The blocks of shell commands, in order."""
        fences = [token for token in self._tokens if token.type == "fence" and token.info.strip() in _SHELLS]
        return [Block(token.info.strip(), token.content, (token.map or [0])[0] + 2) for token in fences]

    @property
    def inline_codes(self) -> list[str]:
        return [token.content for token in self._inline() if token.type == "code_inline"]

    @property
    def links(self) -> list[str]:
        """Where links lead, and where pictures come from."""
        attributes = {"link_open": "href", "image": "src"}
        found = (token.attrGet(attributes[token.type]) for token in self._inline() if token.type in attributes)
        return [str(target) for target in found if target]

    @cached_property
    def anchors(self) -> set[str]:
        """What a link to this document may name after `#`, as GitHub makes it from headings."""
        anchors = set(_WORDS_OF_HTML.findall(self.text))
        for before, token in zip(self._tokens, self._tokens[1:], strict=False):
            if before.type == "heading_open":
                slug = base = _slug(_plain(token))
                number = 0
                while slug in anchors:
                    number += 1
                    slug = f"{base}-{number}"
                anchors.add(slug)
        return anchors

    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()


def documents() -> list[Document]:
    """All documents that are written for readers."""
    paths = sorted({path for place in _PLACES for path in ROOT.glob(place)})
    return [Document(path) for path in paths if path.name not in _NOT_FOR_READERS]


def _plain(heading: Token) -> str:
    return "".join(child.content for child in heading.children or () if child.type in ("text", "code_inline"))


def _slug(heading: str) -> str:
    return _PUNCTUATION.sub("", heading.strip().lower()).replace(" ", "-")
