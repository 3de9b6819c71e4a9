"""A chat with a scripted backend in the terminal that this process has; `python -m tests.ui.terminal_chat HISTORY`."""

from __future__ import annotations

import sys
from pathlib import Path

from llama_chat.history import History
from llama_chat.ui.app import ChatApp
from llama_chat.ui.options import ChatOptions
from tests.ui.scripted import ScriptedBackend


def main() -> None:
    backend = ScriptedBackend(answers=[["slow "] * 600], seconds=0.05)
    ChatApp(backend, History(Path(sys.argv[1])), ChatOptions(model="scripted")).run()


if __name__ == "__main__":
    main()
