"""`llama-chat paths`: where things are."""

from __future__ import annotations

from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.paths import Paths


@click.command("paths")
@options.as_json
def command(json: bool, **params: Any) -> None:
    """Show where settings, history, models, KV states and logs are.

    To use other folders, set LLAMA_CHAT_CONFIG_DIR, LLAMA_CHAT_DATA_DIR, LLAMA_CHAT_STATE_DIR, LLAMA_CHAT_CACHE_DIR,
    LLAMA_CHAT_RUNTIME_DIR or LLAMA_CHAT_MODELS_DIR.
    """
    found = _facts(options.load(params).paths)
    if json:
        output.print_json(found)
    else:
        output.print_result(output.format_table(list(found.items())))


def _facts(paths: Paths) -> dict[str, str]:
    return {
        "config": str(paths.config_file),
        "history": str(paths.history),
        "models": str(paths.models),
        "states": str(paths.kv_states),
        "log": str(paths.log),
        "socket": str(paths.socket),
    }
