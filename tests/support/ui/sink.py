"""Where an answer is shown, without a widget."""

from __future__ import annotations


class Sink:
    """An AnswerSink that keeps what it is shown."""

    def __init__(self) -> None:
        self.text = ""
        self.waits: list[str] = []
        self.end: tuple[str | None, str | None] | None = None

    def append(self, text: str) -> None:
        self.text += text

    def wait(self, reason: str) -> None:
        self.waits.append(reason)

    def finish(self, finish_reason: str | None, error: str | None = None) -> None:
        self.end = (finish_reason, error)
