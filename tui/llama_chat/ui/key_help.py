"""The keys, as the help shows them."""

from __future__ import annotations

KEYS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "Writing",
        (
            ("Enter", "send"),
            ("Ctrl+J", "new line; also Shift+Enter or Alt+Enter, where the terminal tells them apart"),
            ("↑ ↓", "in the first or last line: earlier prompts"),
            ("Ctrl+/", "undo"),
            ("Ctrl+W  Ctrl+U", "delete a word, or back to the start of the line"),
        ),
    ),
    (
        "Answers",
        (
            ("Esc", "stop; what has come is kept"),
            ("Ctrl+T", "ask the last question again"),
            ("PgUp PgDn", "scroll; at the end the view follows the answer"),
            ("Shift+Tab", "go to the messages: ↑ ↓ choose, c copies, r asks again, Esc returns"),
            ("Mouse", "select text, then Ctrl+C copies it"),
        ),
    ),
    (
        "Chats",
        (
            ("Ctrl+N", "new chat"),
            ("Ctrl+R", "earlier chats"),
        ),
    ),
    (
        "Program",
        (
            ("Ctrl+C", "copy a selection, else clear the draft, else stop, else quit when pressed twice"),
            ("Ctrl+D", "quit, when the draft is empty"),
            ("Ctrl+P", "all commands, and themes"),
            ("Ctrl+Z", "suspend"),
        ),
    ),
)
"""Groups of keys and what they do."""
