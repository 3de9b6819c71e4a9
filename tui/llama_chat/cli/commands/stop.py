"""`llama-chat stop`: ends the background backend."""

from __future__ import annotations

from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.errors import ChatError


@click.command("stop")
def command(**params: Any) -> None:
    """End the background backend.

    Answers that it is still writing are completed first.
    """
    from llama_backend.client.launch import find, stop
    from llama_chat.backends.launching import runtime_files
    from llama_chat.cli.commands.status import local_status

    setup = options.load(params)
    found = runtime_files(setup.paths)
    if find(found) is None:
        output.print_note("llama-chat: no backend was running")
    elif not stop(found, local_status(setup).pid):
        raise ChatError("the backend is still writing an answer; it ends when that is complete")
