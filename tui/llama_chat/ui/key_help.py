"""The keys of the chat, as the help shows them."""

from __future__ import annotations

from typing import NamedTuple


class KeyUse(NamedTuple):
    """One or more keys, and what they do."""

    keys: str
    use: str


class KeyGroup(NamedTuple):
    """Keys that belong together."""

    title: str
    keys: tuple[KeyUse, ...]


KEY_GROUPS = (
    KeyGroup(
        "Writing",
        (
            KeyUse("Enter", "send"),
            KeyUse("Ctrl+J", "new line; Shift+Enter and Alt+Enter too, in terminals that report them"),
            KeyUse("↑ ↓", "in the first or last line: earlier prompts"),
            KeyUse("Ctrl+A  Ctrl+E", "go to the start, or the end, of the line; Ctrl+← Ctrl+→ move by words"),
            KeyUse("Ctrl+W", "delete the word before the cursor"),
            KeyUse("Ctrl+U  Ctrl+K", "delete to the start, or to the end, of the line"),
            KeyUse("Ctrl+/  Ctrl+Y", "undo, and redo"),
            KeyUse("F6  F7", "select the line, or everything; Shift with the arrow keys selects text"),
            KeyUse("Ctrl+X  Ctrl+V", "cut the selection, and paste what was cut or copied in the chat"),
        ),
    ),
    KeyGroup(
        "Answers",
        (
            KeyUse("Esc", "stop the answer and keep what has arrived"),
            KeyUse("Ctrl+T", "ask the last question again"),
            KeyUse("PgUp PgDn", "scroll; at the end the view follows the answer"),
            KeyUse("Shift+Tab", "go to the messages: ↑ ↓ move, c copies, r asks the last question again, Esc returns"),
            KeyUse("Mouse", "select text, then Ctrl+C copies it"),
        ),
    ),
    KeyGroup("Chats", (KeyUse("Ctrl+N", "new chat"), KeyUse("Ctrl+R", "earlier chats"))),
    KeyGroup(
        "Program",
        (
            KeyUse("Ctrl+C", "copy the selection; or clear the draft; or stop the answer; or, pressed twice, quit"),
            KeyUse("Ctrl+D", "quit, when the draft is empty"),
            KeyUse("Ctrl+Q", "quit at once; what has arrived of an answer is kept"),
            KeyUse("Ctrl+P", "all commands, and themes"),
            KeyUse("Ctrl+Z", "suspend; `fg` in the shell returns"),
        ),
    ),
)
