"""What an empty conversation shows."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from llama_chat.ui.join_content import join_content

_KEYS = (
    ("Enter", "send"),
    ("Ctrl+J", "new line"),
    ("Esc", "stop the answer"),
    ("Ctrl+R", "earlier chats"),
    ("F1", "all keys"),
)


class Welcome(Static):
    """The name of the program, and the keys that everybody needs."""

    DEFAULT_CSS = """
    Welcome { height: auto; width: auto; }
    """

    def __init__(self) -> None:
        super().__init__(_content())


def _content() -> Content:
    title = Content.styled("llama-chat", "bold $text-primary")
    keys = [Content.styled(f"{key:<8}", "$text-accent") + Content.styled(use, "$foreground 60%") for key, use in _KEYS]
    return join_content([title, Content(""), *keys], Content("\n"))
