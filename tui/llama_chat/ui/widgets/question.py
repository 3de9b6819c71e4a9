"""A message of the user, as it was typed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from llama_chat.plain_text import plain_text
from llama_chat.ui.widgets.message import Message


class Question(Message):
    """Plain text with a bar at its left; nothing in it is treated as markup."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = plain_text(text)

    @property
    def text(self) -> str:
        return self._text

    def compose(self) -> ComposeResult:
        yield Static(Content(self._text))
