"""`llama-chat config`: the settings in force."""

from __future__ import annotations

from typing import Any

import click
from msgspec import structs

from llama_chat.backends.targets import without_login
from llama_chat.cli import options
from llama_chat.cli.display import output
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
    values = {name: getattr(found.settings, name) for name in sorted(found.sources)}
    shown = {name: without_login(values[name]) for name in ("target", "url") if values.get(name)}
    named = {name: structs.replace(target, url=without_login(target.url)) for name, target in values["targets"].items()}
    return values | shown | {"targets": named}
