"""`llama-chat models`: what is installed, or what a backend elsewhere serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llama_backend.errors import ModelUnreadable
from llama_backend.models import InstalledModel, installed
from llama_chat.cli import options, output
from llama_chat.cli.options import Setup
from llama_chat.cli.units import size_text

if TYPE_CHECKING:
    from llama_backend.api import ModelInfo


@click.command("models")
@options.url
@options.as_json
def command(json: bool, **params: Any) -> None:
    """List the installed models, or those of the backend at --url."""
    setup = options.load(params)
    models = _served(setup) if setup.settings.url else _installed(setup)
    if json:
        output.write_json(models)
    elif models:
        output.write(output.table([("NAME", "SIZE", "TYPE", "CONTEXT", "ARCHITECTURE"), *map(_row, models)]))
    else:
        output.note(f"llama-chat: no model is installed in {setup.paths.models}")


def _installed(setup: Setup) -> list[dict[str, Any]]:
    return [_facts(model) for model in installed(setup.paths.models)]


def _facts(model: InstalledModel) -> dict[str, Any]:
    """What is known of a model; of a file that is no GGUF, why."""
    facts: dict[str, Any] = {"name": model.name, "path": str(model.path)}
    try:
        return facts | {
            "size": model.size,
            "quantization": model.quantization,
            "context": model.context,
            "architecture": model.architecture,
        }
    except (ModelUnreadable, OSError) as error:
        return facts | {"error": str(error)}


def _served(setup: Setup) -> list[dict[str, Any]]:
    import asyncio

    names = ("size", "quantization", "context", "architecture")
    models = asyncio.run(_ask_models(setup))
    return [{"name": model.id, **{name: getattr(model.meta, name, None) for name in names}} for model in models]


async def _ask_models(setup: Setup) -> list[ModelInfo]:
    from llama_backend.client import Address, Client

    async with Client(Address(url=setup.settings.url or ""), options.api_key(setup.settings)) as client:
        return await client.models()


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    if "error" in facts:
        return facts["name"], "", "", "", facts["error"]
    size = size_text(facts["size"]) if facts["size"] is not None else ""
    rest = (facts[name] for name in ("quantization", "context", "architecture"))
    return facts["name"], size, *("" if value is None else str(value) for value in rest)
