"""A listener that keeps what was reported to it."""

from __future__ import annotations


class Recorder:
    """Stages with their totals and the last amount of each, and the warnings."""

    def __init__(self) -> None:
        self.stages: dict[str, tuple[int, int]] = {}
        self.finished: list[str] = []
        self.warnings: list[str] = []
        self._open = ""

    def start(self, stage: str, total: int) -> None:
        self._open = stage
        self.stages[stage] = (0, total)

    def advance(self, done: int) -> None:
        last, total = self.stages[self._open]
        assert last <= done <= (total or done), f"{self._open} went from {last} to {done} of {total}"
        self.stages[self._open] = (done, total)

    def finish(self) -> None:
        self.finished.append(self._open)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
