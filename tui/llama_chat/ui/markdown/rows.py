"""The parts of a document, and the rows on the screen that they take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from textual.content import Content

EMPTY = Content("")
_LONGEST_PROSE = 100
"""The most cells of a row of prose, even on a wider terminal: longer rows are hard to read."""
_LEAST_ROOM = 8
"""The fewest cells for the text of a line, however deep it is indented; what passes the edge is cut off."""


class Margin(NamedTuple):
    """Bullets and quote bars at the left of a block: before its first row, and before the rows after that."""

    first: Content = EMPTY
    rest: Content = EMPTY

    def inside(self, first: Content, rest: Content) -> Margin:
        """The margin of a block within the block that has this one."""
        return Margin(self.first + first, self.rest + rest)

    @property
    def continued(self) -> Margin:
        """The margin for the rows after the first one."""
        return Margin(self.rest, self.rest)


NO_MARGIN = Margin()


@dataclass(frozen=True, slots=True)
class Row:
    """One row on the screen."""

    content: Content
    separator: str | None = None
    """The text at which a line was wrapped before this row; None where the row begins a new line."""
    indent: int = 0
    """Characters at the start of a wrapped row that belong to the margin and not to the text."""
    is_code: bool = False


class Item(Protocol):
    """A part of a document that knows how to lay itself out."""

    def rows(self, width: int) -> list[Row]:
        """The rows at `width` cells, at least one."""
        ...


@dataclass(frozen=True, slots=True)
class Line:
    """Text without a line end, wrapped at words, or for code at cells."""

    content: Content
    margin: Margin = NO_MARGIN
    is_code: bool = False

    def rows(self, width: int) -> list[Row]:
        first, rest = self.margin
        room = max((width if self.is_code else min(width, _LONGEST_PROSE)) - first.cell_length, _LEAST_ROOM)
        if self.content.cell_length <= room:
            return [Row(first + self.content, is_code=self.is_code)]
        pieces = self.content.fold(room) if self.is_code else self.content.wrap(room)
        separators = _separators(self.content.plain, pieces)
        indent = len(rest.plain)
        rows = [Row(first + pieces[0], is_code=self.is_code)]
        for piece, separator in zip(pieces[1:], separators, strict=True):
            rows.append(Row(rest + piece, separator, indent, self.is_code))
        return rows


@dataclass(frozen=True, slots=True)
class Rule:
    """A horizontal line across the whole width."""

    margin: Margin
    style: str

    def rows(self, width: int) -> list[Row]:
        room = max(width - self.margin.first.cell_length, 1)
        return [Row(self.margin.first + Content.styled("─" * room, self.style))]


def lines(content: Content, margin: Margin, is_code: bool = False) -> Iterator[Line]:
    """The lines of a text that may hold line ends."""
    for number, part in enumerate(content.split("\n", allow_blank=True)):
        yield Line(part, margin if number == 0 else margin.continued, is_code)


def selected_text(rows: Iterable[Row], starts_within: int = 0, ends_at: int | None = None) -> str:
    """The unwrapped text of `rows`, from character `starts_within` of the first to `ends_at` of the last."""
    parts: list[str] = []
    rows = list(rows)
    for number, row in enumerate(rows):
        begin = max(starts_within if number == 0 else 0, row.indent)
        end = ends_at if number == len(rows) - 1 else None
        separator = "" if number == 0 else "\n" if row.separator is None else row.separator
        parts.append(separator + row.content.plain[begin:end])
    return "".join(parts)


def _separators(text: str, pieces: list[Content]) -> list[str]:
    """The text that wrapping left out between the pieces."""
    separators: list[str] = []
    end = len(pieces[0].plain)
    for piece in pieces[1:]:
        start = text.find(piece.plain, end)
        separators.append(text[end:start] if start >= 0 else " ")
        end = max(start, end) + len(piece.plain)
    return separators
