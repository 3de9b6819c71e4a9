"""An answer of the model, while it arrives and afterwards."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.reactive import reactive
from textual.widgets import Static

from llama_chat.plain_text import one_line
from llama_chat.ui.widgets.markdown_view import MarkdownView
from llama_chat.ui.widgets.message import Message

_NOTES = {
    "cancelled": "■ stopped",
    "length": "… cut off at the length limit",
    "error": "✗ failed",
}


class Answer(Message):
    """Markdown, and below it a note where the answer is waited for, was stopped or has failed."""

    note: reactive[Content] = reactive(Content(""))

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._view = MarkdownView(text)

    @classmethod
    def stored(cls, text: str, finish_reason: str | None, error: str | None) -> Answer:
        """An answer from the history; without a finish reason, the program that wrote it was killed."""
        answer = cls(text)
        answer.finish(finish_reason or "cancelled", error)
        return answer

    @property
    def text(self) -> str:
        return self._view.source

    def compose(self) -> ComposeResult:
        yield self._view
        yield Static(self.note, id="note")

    def append(self, text: str) -> None:
        """Adds text that has arrived."""
        self._view.append(text)

    def wait(self, reason: str) -> None:
        """Shows what the answer waits for; an empty reason removes that."""
        self.note = Content.styled(one_line(reason), "$foreground 60%")

    def finish(self, finish_reason: str | None, error: str | None = None) -> None:
        """Shows how the answer ended, where it did not end as usual."""
        if error:
            advice = Content.styled("  Ctrl+T asks again", "$foreground 60%")
            self.note = Content.styled(f"✗ {one_line(error)}", "$text-error") + advice
        else:
            self.note = Content.styled(_NOTES.get(finish_reason or "", ""), "$foreground 60%")

    def watch_note(self, note: Content) -> None:
        self.set_class(bool(note), "-noted")
        for widget in self.query("#note").results(Static):
            widget.update(note)
