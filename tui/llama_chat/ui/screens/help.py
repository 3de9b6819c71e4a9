"""All keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

from llama_chat.ui.join_content import join_content
from llama_chat.ui.key_help import KEY_GROUPS


class HelpScreen(ModalScreen[None]):
    """The keys and what they do."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q,enter", "dismiss", "Close", show=False),
        Binding("ctrl+c", "dismiss", "Close", show=False, priority=True),
    ]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="panel") as panel:
            panel.border_title = "Keys"
            panel.border_subtitle = "↑ ↓ scroll · Esc closes"
            for title, keys in KEY_GROUPS:
                yield Static(Content.styled(title, "bold $text-primary"), classes="group")
                for key, use in keys:
                    yield KeyRow(key, use)


class KeyRow(Static):
    """A key and what it does, which is wrapped in a column of its own."""

    _COLUMN = 16

    def __init__(self, key: str, use: str) -> None:
        super().__init__()
        self._key, self._use = key, use

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._use_lines(width))

    def render(self) -> Content:
        lines = self._use_lines(self.size.width)
        column = Content(" " * self._COLUMN)
        head = Content.styled(self._key.ljust(self._COLUMN), "$text-accent")
        return join_content([head + lines[0], *[column + line for line in lines[1:]]], Content("\n"))

    def _use_lines(self, width: int) -> list[Content]:
        return Content.styled(self._use, "$foreground 60%").wrap(max(width - self._COLUMN, 8))
