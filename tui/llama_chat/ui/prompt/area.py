"""The box in which questions are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.timer import Timer
from textual.widgets import TextArea

from llama_chat.plain_text import plain_text
from llama_chat.ui.prompt.paste_guard import SETTLE_SECONDS, PasteGuard
from llama_chat.ui.prompt.recall import PromptRecall


class PromptArea(TextArea):
    """Enter sends, Ctrl+J breaks the line, pasting never sends, Up and Down recall earlier prompts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j,shift+enter,alt+enter", "line_end", "New line", show=False),
        Binding("up", "up", "Up, or the previous prompt", show=False),
        Binding("down", "down", "Down, or the next prompt", show=False),
        Binding("ctrl+d", "delete_or_end", "Delete, or quit when empty", show=False),
        Binding("ctrl+underscore,super+z", "undo", "Undo", show=False),
    ]
    DEFAULT_CSS = """
    PromptArea, PromptArea:focus {
        height: auto;
        max-height: 10;
        border: none;
        padding: 0;
        background: transparent;
        scrollbar-size-vertical: 1;
    }
    """

    @dataclass
    class Submitted(Message):
        """Enter was pressed on a text."""

        text: str

    class Ended(Message):
        """Ctrl+D was pressed in the empty box."""

    def __init__(self) -> None:
        super().__init__(placeholder="Write a message", highlight_cursor_line=False)
        self.recall = PromptRecall()
        self._guard = PasteGuard()
        self._waiting_enter: Timer | None = None

    def put(self, text: str) -> None:
        """Replaces the text, which undo brings back; the cursor goes to the end."""
        self.replace(plain_text(text), *self._whole)
        self.move_cursor(self.document.end)

    def take(self) -> str:
        """Empties the box and returns its text, which can be recalled."""
        text = self.text
        self.recall.add(text)
        self.put("")
        return text

    @property
    def _whole(self) -> tuple[tuple[int, int], tuple[int, int]]:
        return (0, 0), self.document.end

    async def _on_key(self, event: events.Key) -> None:
        """Handles Enter and the keys that are bound here; TextArea's own handler, which comes next, handles the others.

        Textual runs a binding only after the key has passed up to the app. When keys arrive fast, later ones would be
        in the text before that, and a new line would be added after them instead of before.
        """
        in_burst = self._guard.key(event.time)
        self._settle_enter(in_burst)
        if event.key == "enter":
            self._enter(in_burst)
        elif action := self._bound_action(event):
            await self.run_action(action)
        else:
            return
        event.stop()
        event.prevent_default()

    def _bound_action(self, event: events.Key) -> str | None:
        """The action of a key that is bound here."""
        active = None if event.is_printable else self.screen.active_bindings.get(event.key)
        return active.binding.action if active and active.node is self else None

    def _enter(self, in_burst: bool) -> None:
        if in_burst:
            self._waiting_enter = self.set_timer(SETTLE_SECONDS, self._settle_enter)
        else:
            self._submit()

    async def _on_paste(self, event: events.Paste) -> None:
        """Neutralises the text; TextArea's own handler, which Textual calls next, inserts it."""
        self._settle_enter()
        event.text = plain_text(event.text)

    def _settle_enter(self, more_follows: bool = False) -> None:
        """Decides whether an Enter right after another key sends the text or ends a line."""
        if self._waiting_enter is None:
            return
        self._waiting_enter.stop()
        self._waiting_enter = None
        if more_follows or self._guard.is_paste:
            self._guard.line_end()
            self.action_line_end()
        else:
            self._submit()

    def _submit(self) -> None:
        if self.text.strip():
            self.post_message(self.Submitted(self.text))

    def action_line_end(self) -> None:
        start, end = self.selection
        self._replace_via_keyboard("\n", start, end)

    def action_delete_or_end(self) -> None:
        if self.text:
            self.action_delete_right()
        else:
            self.post_message(self.Ended())

    def action_up(self) -> None:
        if not self.cursor_at_first_line:
            self.action_cursor_up()
        elif (text := self.recall.older(self.text)) is not None:
            self.put(text)

    def action_down(self) -> None:
        if not self.cursor_at_last_line:
            self.action_cursor_down()
        elif (text := self.recall.newer(self.text)) is not None:
            self.put(text)
