"""All keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from llama_chat.ui.joined import joined
from llama_chat.ui.key_help import KEYS


class HelpScreen(ModalScreen[None]):
    """The keys and what they do."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q,enter", "dismiss", "Close", show=False),
        Binding("ctrl+c", "dismiss", "Close", show=False, priority=True),
    ]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel") as panel:
            panel.border_title = "Keys"
            panel.border_subtitle = "Esc closes"
            for title, keys in KEYS:
                yield Static(Content.styled(title, "bold $text-primary"), classes="group")
                for key, use in keys:
                    yield KeyRow(key, use)


class KeyRow(Static):
    """One key and its use; the use is wrapped in its own column."""

    _COLUMN = 16

    def __init__(self, key: str, use: str) -> None:
        super().__init__()
        self._key, self._use = key, use

    def render(self) -> Content:
        lines = Content.styled(self._use, "$foreground 60%").wrap(max(self.size.width - self._COLUMN, 8))
        column = Content(" " * self._COLUMN)
        head = Content.styled(self._key.ljust(self._COLUMN), "$text-accent")
        return joined([head + lines[0], *[column + line for line in lines[1:]]], Content("\n"))
