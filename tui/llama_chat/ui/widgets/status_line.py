"""One row: the model, the backend and its state, the speed of the answer, and how full the context is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import NamedTuple

from textual.content import Content
from textual.reactive import reactive
from textual.timer import Timer
from textual.widget import Widget

from llama_chat.plain_text import one_line
from llama_chat.ui.backend_state import BackendState
from llama_chat.ui.context_meter import Reading
from llama_chat.ui.join_content import join_content

_BAR_CELLS = 8
_WARN_SHARE = 0.9
_DOT = Content.styled(" · ", "$foreground 30%")
_GAP = Content("  ")
_KEPT = 9
"""Parts with this weight or more are shortened and never left out."""


@dataclass(frozen=True)
class Status:
    """What the row shows."""

    target_name: str = ""
    is_saved: bool = True
    model: str = ""
    backend: BackendState = field(default_factory=BackendState)
    reading: Reading = field(default_factory=Reading)
    is_answering: bool = False
    tokens_per_second: float | None = None
    hint: str = ""
    """Shown in place of the model and the state while it is not empty."""
    is_warning: bool = False
    """Whether the hint is about something that went wrong."""


class StatusLine(Widget):
    """Shows a Status; where the row is too short, the least important parts are left out first."""

    DEFAULT_CSS = """
    StatusLine { height: 1; width: 1fr; color: $text-muted; }
    """

    status: reactive[Status] = reactive(Status())

    def __init__(self) -> None:
        super().__init__()
        self._hint_timer: Timer | None = None

    def set_target(self, target_name: str, model: str, *, is_saved: bool) -> None:
        self.status = replace(self.status, target_name=target_name, model=model, is_saved=is_saved)

    def set_state(self, state: BackendState) -> None:
        """Shows the state of the backend, and its model where it names one."""
        self.status = replace(self.status, backend=state, model=state.model or self.status.model)

    def set_reading(self, reading: Reading) -> None:
        self.status = replace(self.status, reading=reading)

    def set_rate(self, tokens_per_second: float | None) -> None:
        self.status = replace(self.status, tokens_per_second=tokens_per_second)

    def set_answering(self, is_answering: bool) -> None:
        self.status = replace(self.status, is_answering=is_answering)

    def show_hint(self, text: str, seconds: float, *, is_warning: bool) -> None:
        """Shows a hint in place of the state for `seconds`."""
        self.end_hint()
        self.status = replace(self.status, hint=text, is_warning=is_warning)
        self._hint_timer = self.set_timer(seconds, self.end_hint)

    def end_hint(self) -> None:
        if self._hint_timer is not None:
            self._hint_timer.stop()
            self._hint_timer = None
            self.status = replace(self.status, hint="")

    def render(self) -> Content:
        return row(self.status, self.size.width)


class Part(NamedTuple):
    """A part of the row; the parts with the least weight are left out first."""

    content: Content
    weight: int


def row(status: Status, width: int) -> Content:
    """The row in `width` cells: the state on the left, the numbers on the right."""
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
    saved = "" if status.is_saved else " · not saved"
    yield Part(Content(one_line(status.target_name) + saved), 3)
    yield Part(state, weight)


def _state(status: Status) -> tuple[int, Content]:
    """The weight of the backend's state, and its text."""
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
    """`1,204 / 4,096`, with `~` before it where the count is not exact."""
    if reading.count is None:
        return f"context {reading.context:,}"
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
    """Cells between the two sides."""
    return _GAP.cell_length if right else 0


def _joined(parts: Sequence[Part], separator: Content) -> Content:
    return join_content([part.content for part in parts], separator)


def _length(parts: Sequence[Part], separator: Content) -> int:
    return _joined(parts, separator).cell_length
