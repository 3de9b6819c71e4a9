"""The saved conversations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from llama_chat.errors import HistoryError
from llama_chat.history import Conversation, History
from llama_chat.local_time import local_time
from llama_chat.plain_text import one_line
from llama_chat.ui.screens.confirm import ConfirmScreen

_MOST = 500
"""Conversations in the list."""


class HistoryScreen(ModalScreen[Conversation | None]):
    """A list of the saved conversations, the newest first; returns the chosen one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "dismiss", "Close", show=False),
        Binding("ctrl+c,ctrl+r", "dismiss", "Close", show=False, priority=True),
        Binding("d,delete", "delete", "Delete", show=False),
        Binding("j", "step('cursor_down')", "Down", show=False),
        Binding("k", "step('cursor_up')", "Up", show=False),
    ]

    def __init__(self, history: History, on_delete: Callable[[], object]) -> None:
        """`on_delete` is called after a conversation was deleted."""
        super().__init__()
        self._history = history
        self._on_delete = on_delete
        self._conversations: list[Conversation] = []

    def compose(self) -> ComposeResult:
        with Vertical(classes="panel") as panel:
            panel.border_title = "Earlier chats"
            panel.border_subtitle = "Enter opens · d deletes · Esc closes"
            yield OptionList(markup=False)
            yield Static(id="message")

    def on_mount(self) -> None:
        self._load()

    @property
    def _list(self) -> OptionList:
        return self.query_one(OptionList)

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._conversations[event.option_index])

    def action_step(self, action: str) -> None:
        getattr(self._list, f"action_{action}")()

    @work
    async def action_delete(self) -> None:
        at = self._list.highlighted
        if at is None:
            return
        chosen = self._conversations[at]
        if await self.app.push_screen_wait(ConfirmScreen(f"Delete “{one_line(chosen.title)}”?", "Delete")):
            self._remove(chosen)
            self._load(at)

    def _remove(self, conversation: Conversation) -> None:
        try:
            self._history.delete(conversation.id)
        except HistoryError as error:
            self._show_message(str(error))
        else:
            self._on_delete()

    def _show_message(self, text: str) -> None:
        """Shows a message below the list; an empty one removes it."""
        message = self.query_one("#message", Static)
        message.update(Content(one_line(text)))
        message.display = bool(text)

    def _load(self, highlighted: int = 0) -> None:
        try:
            self._conversations = [found for found in self._history.conversations(_MOST) if found.message_count]
            self._show_message("" if self._conversations else "There are no saved chats.")
        except HistoryError as error:
            self._show_message(str(error))
        self._list.display = bool(self._conversations)
        now = datetime.now()
        self._list.set_options([Option(_entry(found, now)) for found in self._conversations])
        if self._conversations:
            self._list.highlighted = min(highlighted, len(self._conversations) - 1)
            self._list.focus()


def _entry(conversation: Conversation, now: datetime) -> Content:
    when = short_time(local_time(conversation.updated), now)
    title = one_line(conversation.title) or "(no title)"
    return Content.styled(f"{when:>6}  ", "$foreground 60%") + Content(title).truncate(200, ellipsis=True)


def short_time(when: datetime, now: datetime) -> str:
    """A short time of at most six characters: today the hour, in this year the day, and before that the year."""
    if when.date() == now.date():
        return f"{when:%H:%M}"
    return f"{when.day} {when:%b}" if when.year == now.year else f"{when:%Y}"
