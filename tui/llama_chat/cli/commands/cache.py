"""`llama-chat cache`: the KV states that the backend keeps, so that conversations continue at once."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.display.units import size_text


@click.group("cache")
def command() -> None:
    """Show or clear the KV states of conversations.

    A KV state holds what a model has computed for a conversation, and the conversation's text as tokens. The backend
    keeps states in RAM and in files that only you can read, so that conversations continue at once. Whatever is cleared
    is computed again when it is needed.
    """


@command.command("show")
@options.as_json
def show(json: bool, **params: Any) -> None:
    """Show the folder of the states, their number and their size."""
    from llama_backend.host.kv_state_folder import states_in
    from llama_chat.backends.launching import kv_folder

    setup = options.load(params)
    folder = kv_folder(setup.settings, setup.paths)
    count, size = states_in(folder)
    if json:
        output.print_json({"folder": str(folder), "states": count, "bytes": size})
    else:
        rows: list[tuple[str, ...]] = [("folder", str(folder)), ("states", str(count)), ("size", size_text(size))]
        output.print_result(output.format_table(rows))


@command.command("clear")
def clear(**params: Any) -> None:
    """Remove all states, on disk and in a running backend."""
    from llama_chat.backends.launching import clear_kv_states

    setup = options.load(params)
    asyncio.run(clear_kv_states(setup.settings, setup.paths))
