"""The entry point, and the list of commands."""

from __future__ import annotations

import gc
import signal
import sys
from typing import NoReturn

COMMANDS = {
    "ask": "Write one answer to standard output.",
    "attach": "Chat on a backend elsewhere.",
    "cache": "Show or clear the KV states of conversations.",
    "chat": "Chat in the terminal; the default command.",
    "config": "Show the settings in force and where each comes from.",
    "convert": "Convert weights to GGUF, quantise and check them.",
    "history": "List, show and delete conversations.",
    "models": "List, show and remove installed models.",
    "paths": "Show where settings, history, models and logs are.",
    "pull": "Fetch a model and install it.",
    "serve": "Run the backend in the foreground.",
    "status": "Show the state of the backend.",
    "stop": "End the background backend.",
}
"""The help line of each command by its module in `commands`, so that listing the commands imports none of them."""


def main() -> NoReturn:
    """Runs the command line of this process.

    Until a command runs, Ctrl+C ends the process at once, as it ends a program in C: while modules are imported, there
    is nothing to clean up, and a traceback would help nobody. At the end the garbage collector is kept from searching
    memory that the end of the process frees anyway, since the search would take noticeable time.
    """
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from llama_backend.host.privacy import keep_private
    from llama_chat.cli import group

    keep_private()
    code = group.run(COMMANDS, sys.argv[1:])
    gc.freeze()
    sys.exit(code)
