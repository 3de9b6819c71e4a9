"""The program: Textual's app around the chat."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from textual.app import App, SuspendNotSupported, SystemCommand
from textual.screen import Screen
from textual.theme import BUILTIN_THEMES

from llama_chat.errors import ConfigError, UsageError
from llama_chat.history import History
from llama_chat.ui.chat_options import ChatOptions
from llama_chat.ui.screens.chat import ChatScreen

if TYPE_CHECKING:
    from llama_chat.backends.attached import AttachedBackend
    from llama_chat.backends.local import LocalBackend
    from llama_chat.backends.remote import RemoteBackend
    from llama_chat.history import Conversation
    from llama_chat.settings import Settings

_WIDTHS = [(0, "-narrow"), (60, "-normal")]
_HEIGHTS = [(0, "-low"), (16, "-high")]
"""CSS classes, and from how many cells on they apply."""
_COLOURLESS = "ansi-dark"
"""The theme with NO_COLOR: only the terminal's own colours, bold, and reverse."""


class ChatApp(App[None]):
    """A chat with `backend`, kept in `history`; it starts with `conversation`, or with a new one."""

    CSS_PATH = "chat.tcss"
    TITLE = "llama-chat"
    HORIZONTAL_BREAKPOINTS = _WIDTHS
    VERTICAL_BREAKPOINTS = _HEIGHTS

    def __init__(
        self, backend: AttachedBackend, history: History, options: ChatOptions, conversation: Conversation | None = None
    ) -> None:
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.options = options
        self._chat = ChatScreen(backend, history, options, conversation)
        self.theme = _COLOURLESS if self.no_color else options.theme or self.theme

    def on_mount(self) -> None:
        """Quits in order on SIGTERM, and on SIGHUP, which comes when the terminal is gone."""
        if not self.is_headless:
            for number in (signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().add_signal_handler(number, self.call_later, self.action_quit)

    def get_default_screen(self) -> Screen[None]:
        return self._chat

    async def action_quit(self) -> None:
        await self._chat.close()
        self.exit()

    def action_suspend_process(self) -> None:
        """Suspends the whole job, as Ctrl+Z does in other programs: a parent such as make has to stop too."""
        with suppress(SuspendNotSupported), self.suspend():
            os.killpg(0, signal.SIGSTOP)

    def get_system_commands(self, screen: Screen[object]) -> Iterator[SystemCommand]:
        chat = self._chat
        yield SystemCommand("New chat", "Start a new conversation (Ctrl+N)", chat.action_new)
        yield SystemCommand("Earlier chats", "Open or delete saved conversations (Ctrl+R)", chat.action_history)
        yield SystemCommand("Ask again", "Ask the last question again (Ctrl+T)", chat.action_retry)
        yield SystemCommand("Stop", "Stop the answer and keep what has arrived (Esc)", chat.action_stop)
        yield SystemCommand("Copy the last answer", "Copy it to the clipboard", chat.action_copy_answer)
        yield SystemCommand("Theme", "Change the colours", self.action_change_theme)
        yield SystemCommand("Keys", "Show all keys (F1)", chat.action_help)
        yield SystemCommand("Quit", "Leave llama-chat (Ctrl+Q)", self.action_quit)


def run_app(
    settings: Settings,
    backend: LocalBackend | RemoteBackend,
    history: History | None,
    conversation: Conversation | None = None,
) -> None:
    """Runs the chat in this terminal until the person quits; without a history nothing is kept after that.

    Raises UsageError where the terminal cannot show the chat, and ConfigError for an unknown theme.
    """
    if os.environ.get("TERM", "dumb") in ("dumb", ""):
        raise UsageError("this terminal cannot show the chat (TERM=dumb); use `llama-chat ask`")
    options = ChatOptions(
        target_name=backend.target_name,
        is_saved=history is not None,
        model=backend.model,
        system=settings.system,
        sampling=settings.sampling(),
        theme=_checked_theme(settings.theme),
    )
    app = ChatApp(backend, history or History(Path(":memory:")), options, conversation)
    app.run()
    if app.return_code:
        raise SystemExit(app.return_code)


def _checked_theme(theme: str | None) -> str | None:
    if theme is not None and theme not in BUILTIN_THEMES:
        raise ConfigError(f"theme: {theme!r} is not one of {', '.join(sorted(BUILTIN_THEMES))}")
    return theme
