"""One row: model, where it runs, how it is, how fast it answers, how full the context is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from llama_chat.plain_text import one_line
from llama_chat.ui.context_meter import Reading
from llama_chat.ui.joined import joined
from llama_chat.ui.watched_backend import BackendState

_BAR_CELLS = 8
_WARN_SHARE = 0.9
_DOT = Content.styled(" · ", "$foreground 30%")
_GAP = Content("  ")
_KEPT = 9
"""Weight from which on a part is cut rather than left out."""


@dataclass(frozen=True)
class Status:
    """What the row shows."""

    where: str = ""
    model: str = ""
    backend: BackendState = field(default_factory=BackendState)
    reading: Reading = field(default_factory=Reading)
    is_answering: bool = False
    tokens_per_second: float | None = None
    hint: str = ""
    """Stands in place of model and state for as long as it is set."""
    is_warning: bool = False
    """Whether the hint tells of something that went wrong."""


class StatusLine(Widget):
    """Shows a Status; what has no room is left out, the least needed first."""

    DEFAULT_CSS = """
    StatusLine { height: 1; width: 1fr; color: $text-muted; }
    """

    status: reactive[Status] = reactive(Status())

    def render(self) -> Content:
        return row(self.status, self.size.width)


class Part(NamedTuple):
    """A piece of the row; those with the least weight are left out first."""

    content: Content
    weight: int


def row(status: Status, width: int) -> Content:
    """The row at `width` cells: state on the left, numbers on the right."""
    left, right = list(_left(status)), list(_right(status))
    while _length(left, _DOT) + _length(right, _GAP) + _apart(right) > width:
        lightest = min((*left, *right), key=lambda part: part.weight)
        if lightest.weight >= _KEPT:
            break
        left, right = [[part for part in parts if part is not lightest] for parts in (left, right)]
    end = _joined(right, _GAP)
    room = max(width - end.cell_length - _apart(right), 0)
    start = _joined(left, _DOT).truncate(room, ellipsis=True)
    return start + Content(" " * max(width - start.cell_length - end.cell_length, 0)) + end


def _left(status: Status) -> Iterator[Part]:
    if status.hint:
        yield Part(Content.styled(one_line(status.hint), "$text-warning" if status.is_warning else "$foreground"), 9)
        return
    weight, state = _state(status)
    if status.model:
        yield Part(Content(one_line(status.model)), 10)
    yield Part(Content(one_line(status.where)), 3)
    yield Part(state, weight)


def _state(status: Status) -> tuple[int, Content]:
    """How the backend is, and how much that matters."""
    phase, reason = status.backend.phase, one_line(status.backend.reason)
    if phase == "failed":
        return 9, Content.styled(f"failed: {reason}" if reason else "failed", "$text-error")
    if phase == "loading":
        return 9, Content.styled(f"loading {status.backend.progress:.0%}", "$text-warning")
    if phase != "ready":
        why = Content.styled(f": {reason}", "$foreground 60%") if reason else Content("")
        return 9, Content.styled(phase, "$text-warning") + why
    if status.backend.queued:
        return 9, Content.styled(f"queued at position {status.backend.queued}", "$text-warning")
    if status.is_answering:
        return 5, Content("Esc stops")
    return 2, Content.styled("ready", "$text-success")


def _right(status: Status) -> Iterator[Part]:
    if status.tokens_per_second is not None:
        yield Part(Content(f"{status.tokens_per_second:.1f} tok/s"), 4)
    count, context = status.reading.count, status.reading.context
    if context is None:
        return
    if count is not None:
        yield Part(_bar(status.reading), 1)
    yield Part(Content.styled(_numbers(status.reading), _colour(status.reading)), 11)


def _numbers(reading: Reading) -> str:
    """`1,204 / 4,096`; with `~` before it where the count is that of an earlier moment."""
    if reading.count is None:
        return f"{reading.context:,} context"
    return f"{'' if reading.is_exact else '~'}{reading.count:,} / {reading.context:,}"


def _bar(reading: Reading) -> Content:
    filled = min(ceil(_share(reading) * _BAR_CELLS), _BAR_CELLS)
    full = Content.styled("━" * filled, _colour(reading) or "$primary")
    return full + Content.styled("─" * (_BAR_CELLS - filled), "$foreground 30%")


def _colour(reading: Reading) -> str:
    if not reading.fits:
        return "bold $text-error"
    return "$text-warning" if _share(reading) >= _WARN_SHARE else ""


def _share(reading: Reading) -> float:
    return (reading.count or 0) / (reading.context or 1)


def _apart(right: Sequence[Part]) -> int:
    """Cells that keep the two sides apart."""
    return _GAP.cell_length if right else 0


def _joined(parts: Sequence[Part], joint: Content) -> Content:
    return joined([part.content for part in parts], joint)


def _length(parts: Sequence[Part], joint: Content) -> int:
    return _joined(parts, joint).cell_length
