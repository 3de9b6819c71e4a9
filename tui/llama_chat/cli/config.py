"""`llama-chat config`: the settings in force."""

from __future__ import annotations

from typing import Any

import click

from llama_chat.cli import options, output
from llama_chat.config import Config


@click.command("config")
@options.as_json
def command(json: bool, **params: Any) -> None:
    """Show each setting, its value and where that comes from.

    Settings are read from the environment (LLAMA_CHAT_MODEL and so on), from the nearest .llama-chat.toml at or above
    the working directory, and from the user's config.toml (see `llama-chat paths`), in this order.
    """
    found = options.load(params).config
    values = _values(found)
    if json:
        output.write_json({name: {"value": value, "source": found.sources[name]} for name, value in values.items()})
    else:
        rows = [(name, "" if value is None else repr(value), found.sources[name]) for name, value in values.items()]
        output.write(output.table([("SETTING", "VALUE", "SOURCE"), *rows]))


def _values(found: Config) -> dict[str, Any]:
    return {name: getattr(found.settings, name) for name in sorted(found.sources)}
