"""`llama-chat cache`: what the backend keeps of conversations to go on with them at once."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.display.units import size_text


@click.group("cache")
def command() -> None:
    """Show and clear the KV states of conversations.

    A state is what a model has computed of a conversation, with its text in tokens. It is kept in RAM and in files that
    only this user can read, so that the conversation goes on at once. Clearing costs nothing but time.
    """


@command.command("show")
@options.as_json
def show(json: bool, **params: Any) -> None:
    """Show where the states are and how much they take."""
    from llama_backend.host.kv_state_folder import states_in
    from llama_chat.backends.launching import kv_folder

    setup = options.load(params)
    folder = kv_folder(setup.settings, setup.paths)
    count, size = states_in(folder)
    if json:
        output.write_json({"folder": str(folder), "states": count, "bytes": size})
    else:
        rows: list[tuple[str, ...]] = [("folder", str(folder)), ("states", str(count)), ("size", size_text(size))]
        output.write(output.table(rows))


@command.command("clear")
def clear(**params: Any) -> None:
    """Remove the states of all conversations, from the disk and from a running backend."""
    from llama_chat.backends.launching import clear_kv_states

    setup = options.load(params)
    asyncio.run(clear_kv_states(setup.settings, setup.paths))
