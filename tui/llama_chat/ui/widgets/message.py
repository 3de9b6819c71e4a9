"""What a question and an answer have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message as Event
from textual.widget import Widget


class Message(Widget, can_focus=True):
    """A message that can have the focus: keys copy it, go to its neighbours, or ask the last question again."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("c,y", "copy", "Copy", show=False),
        Binding("r", "retry", "Ask again", show=False),
        Binding("up,k", "step(-1)", "The message before", show=False),
        Binding("down,j", "step(1)", "The message after", show=False),
        Binding("enter,i", "leave", "Back to the prompt", show=False),
    ]
    FOCUS_ON_CLICK = False
    """A click starts a selection; the focus stays in the prompt."""
    DEFAULT_CSS = """
    Message { height: auto; width: 1fr; layout: vertical; }
    """

    @dataclass
    class Copied(Event):
        """The text of a message is to be copied to the clipboard."""

        text: str

    @dataclass
    class Step(Event):
        """The focus is to go to the message before (-1) or after (1) this one."""

        message: Message
        by: int

    class Left(Event):
        """The focus is to go back to the prompt."""

    class Retried(Event):
        """The last question is to be asked again."""

    @property
    def text(self) -> str:
        """The message as it is copied."""
        raise NotImplementedError

    def action_copy(self) -> None:
        self.post_message(self.Copied(self.text))

    def action_retry(self) -> None:
        self.post_message(self.Retried())

    def action_step(self, by: int) -> None:
        self.post_message(self.Step(self, by))

    def action_leave(self) -> None:
        self.post_message(self.Left())
