"""`llama-chat stop`: ends the background backend."""

from __future__ import annotations

from typing import Any

import click

from llama_chat.cli import options, output


@click.command("stop")
def command(**params: Any) -> None:
    """End the background backend; answers that it is writing are broken off."""
    from llama_backend.launch import stop
    from llama_chat.connection import place

    setup = options.load(params)
    if not stop(place(setup.paths)):
        output.note("llama-chat: no backend was running")
