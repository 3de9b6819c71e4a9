"""The entry point, and the list of commands."""

from __future__ import annotations

import gc
import signal
import sys
from typing import NoReturn

COMMANDS = {
    "ask": "Answer one prompt on standard output.",
    "attach": "Chat on a backend elsewhere.",
    "cache": "Show and clear what the backend keeps of conversations.",
    "chat": "Chat in the terminal; the default command.",
    "convert": "Convert weights to GGUF, quantise and check them.",
    "config": "Show the settings in force and where each comes from.",
    "history": "List, show and delete conversations.",
    "models": "List, show and remove installed models.",
    "paths": "Show where settings, history, models and logs are.",
    "pull": "Fetch a model and install it.",
    "serve": "Run the backend in the foreground.",
    "status": "Show how the backend is.",
    "stop": "End the background backend.",
}
"""Each is a module of `commands`; its help line stands here, so that listing the commands imports none."""


def main() -> NoReturn:
    """Runs the command line of this process.

    Until a command runs, Ctrl+C ends the process as it ends a program in C: while modules are imported nothing is
    there to clean up, and nobody wants to read where that was. In the end nothing is searched for garbage, which the
    end of the process clears anyway: that would take as long as importing much of it.
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
