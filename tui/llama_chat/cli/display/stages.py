"""The stages of a long task on standard error: bars on a terminal, lines elsewhere, or JSON lines."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llama_chat.cli.display import output
from llama_chat.cli.display.units import duration_text, size_text
from llama_chat.errors import ChatError
from llama_chat.plain_text import one_line

_INTERVAL = 0.1
"""Seconds between two drawings of a bar, so that a terminal far away keeps up."""
_BAR_WIDTH = 24


class StageClock:
    """How far the present stage is, and how fast it goes."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.stage = ""
        self.total = self.done = 0
        self._first = 0
        self._start = self._shown = 0.0

    def start(self, stage: str, total: int) -> None:
        self.stage, self.total, self.done = stage, total, 0
        self._first = -1
        self._start, self._shown = self._now(), float("-inf")

    def advance(self, done: int) -> None:
        """Takes how much is done; what is done at the first call comes from an earlier run and is not in the rate."""
        if self._first < 0:
            self._first = done
        self.done = done

    @property
    def seconds(self) -> float:
        return self._now() - self._start

    @property
    def rate(self) -> float:
        """Bytes in a second."""
        return (self.done - max(self._first, 0)) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.rate if self.total and self.rate > 0 else None

    def due(self) -> bool:
        """Whether the last drawing is old enough for another."""
        if self._now() - self._shown < _INTERVAL:
            return False
        self._shown = self._now()
        return True


class BarStages:
    """Each stage is one line, which is drawn again as it proceeds where standard error is a terminal."""

    def __init__(self, clock: StageClock | None = None) -> None:
        self._clock = clock or StageClock()
        self._live = sys.stderr.isatty()
        self._open = False

    def start(self, stage: str, total: int) -> None:
        self._clock.start(one_line(stage), total)
        self._open = True
        self._draw()

    def advance(self, done: int) -> None:
        self._clock.advance(done)
        if self._clock.due():
            self._draw()

    def finish(self) -> None:
        self._clear()
        self._open = False
        clock = self._clock
        size = f"{size_text(clock.total)}, " if _is_size(clock) else ""
        output.print_note(f"{clock.stage}: {size}{duration_text(clock.seconds)}")

    def warn(self, text: str) -> None:
        self._clear()
        output.print_note(f"note: {text}")

    def close(self) -> None:
        """Removes a bar that is not complete."""
        if self._open:
            self._clear()

    def _draw(self) -> None:
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            output.write_stderr("\r" + bar(self._clock)[:width] + "\x1b[K")

    def _clear(self) -> None:
        if self._live:
            output.write_stderr("\r\x1b[K")


class JsonStages:
    """Each event is a line with a JSON object; `event` is `stage`, `progress`, `done` or `warning`."""

    def __init__(self, clock: StageClock | None = None) -> None:
        self._clock = clock or StageClock()

    def start(self, stage: str, total: int) -> None:
        self._clock.start(stage, total)
        _send(event="stage", stage=stage, total=total)

    def advance(self, done: int) -> None:
        clock = self._clock
        clock.advance(done)
        if clock.due():
            left = clock.seconds_left
            rest = {"rate": round(clock.rate), "seconds_left": None if left is None else round(left, 1)}
            _send(event="progress", stage=clock.stage, done=done, total=clock.total, **rest)

    def finish(self) -> None:
        _send(event="done", stage=self._clock.stage, seconds=round(self._clock.seconds, 2))

    def warn(self, text: str) -> None:
        _send(event="warning", text=text)

    def close(self) -> None: ...


Stages = BarStages | JsonStages


@contextmanager
def shown_stages(json: bool) -> Iterator[Stages]:
    """The listener for a task, which leaves nothing behind on the screen however the task ends.

    Raises ChatError where the system fails the task: with the file and the reason.
    """
    listener = JsonStages() if json else BarStages()
    try:
        yield listener
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ChatError(f"{error.filename or 'the system'}: {error.strerror or error}") from error
    except MemoryError as error:
        raise ChatError("there is not enough memory") from error
    finally:
        listener.close()


def bar(clock: StageClock) -> str:
    """The stage as one line: how much is done, how fast, and how long the rest takes."""
    if not clock.total:
        return f"{clock.stage} …"
    share = min(clock.done / clock.total, 1.0)
    filled = round(share * _BAR_WIDTH)
    line = f"{clock.stage} {'█' * filled}{'░' * (_BAR_WIDTH - filled)} {share:4.0%}"
    if not _is_size(clock):
        return f"{line}  {clock.done}/{clock.total}"
    line += f"  {size_text(clock.done)} of {size_text(clock.total)}  {size_text(clock.rate)}/s"
    left = clock.seconds_left
    return line if left is None else f"{line}  {duration_text(left)} left"


def _is_size(clock: StageClock) -> bool:
    """Measuring counts windows of text; everything else counts bytes."""
    return bool(clock.total) and not clock.stage.startswith("measure")


def _send(**event: Any) -> None:
    output.write_stderr(output.safe_for(sys.stderr, json.dumps(event, ensure_ascii=False)) + "\n")
