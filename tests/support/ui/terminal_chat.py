"""A chat with a scripted backend in this process's terminal: `python -m tests.support.ui.terminal_chat HISTORY`.

QUIET in the environment stops what moves by itself, and has the chat show every so many seconds that it is alive.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from llama_chat.history import History
from llama_chat.ui.app import ChatApp
from llama_chat.ui.chat_options import ChatOptions
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.screens import chat
from tests.support.ui.scripted_backend import ScriptedBackend


def main() -> None:
    if quiet := os.environ.get("QUIET"):
        PromptArea.cursor_blink = False  # type: ignore[assignment]
        chat.ALIVE_SECONDS = float(quiet)
    backend = ScriptedBackend(answers=[["slow "] * 600], seconds=0.05)
    ChatApp(backend, History(Path(sys.argv[1])), ChatOptions(model="scripted")).run()


if __name__ == "__main__":
    main()
