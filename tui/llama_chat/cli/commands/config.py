"""`llama-chat config`: the settings in force."""

from __future__ import annotations

from typing import Any

import click
from msgspec import structs

from llama_chat.backends.targets import without_login
from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.config import Config
from llama_chat.settings import SETTINGS, default_text


@click.command("config")
@options.as_json
def command(json: bool, **params: Any) -> None:
    """Show each setting, its value and where the value comes from.

    The first of these that sets it counts: an option of the command, an environment variable (LLAMA_CHAT_MODEL for
    model), the nearest .llama-chat.toml in the working directory or above it, the user's config.toml (see `llama-chat
    paths`), the default. A text in parentheses says what the default does.
    """
    found = options.load(params).config
    values = _values(found)
    if json:
        output.print_json({name: _facts(name, value, found) for name, value in values.items()})
    else:
        rows = [(name, _shown(name, value), found.sources[name]) for name, value in values.items()]
        output.print_result(output.format_table([("SETTING", "VALUE", "SOURCE"), *rows]))


def _facts(name: str, value: Any, found: Config) -> dict[str, Any]:
    """What `--json` writes of a setting."""
    return {
        "value": value,
        "source": found.sources[name],
        "default": default_text(name) or None,
        "meaning": SETTINGS[name].help,
    }


def _shown(name: str, value: Any) -> str:
    if value is not None:
        return repr(value)
    return f"({default_text(name)})" if default_text(name) else ""


def _values(found: Config) -> dict[str, Any]:
    """All values by name; logins in URLs are left out."""
    values = {name: getattr(found.settings, name) for name in sorted(found.sources)}
    urls = {name: without_login(values[name]) for name in ("target", "url") if values.get(name)}
    named = {name: structs.replace(target, url=without_login(target.url)) for name, target in values["targets"].items()}
    return values | urls | {"targets": named}
