"""`llama-chat models`: what is installed, or what a backend elsewhere serves; one model in full; removing one."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import click

from llama_backend.errors import ModelUnreadable
from llama_backend.models.installed import (
    DEMO_NAME,
    DEMO_PACKAGE,
    InstalledModel,
    demo_model,
    installed,
    resolve,
)
from llama_chat.cli import options
from llama_chat.cli.confirm_deletion import confirm_deletion, yes_flag
from llama_chat.cli.display import output
from llama_chat.cli.display.units import size_text
from llama_chat.cli.options import Setup
from llama_chat.errors import UsageError
from llama_chat.plain_text import one_line, table_cell
from llama_convert.record import files_of, read_record

if TYPE_CHECKING:
    from llama_backend.wire.api import ModelInfo
    from llama_chat.backends.remote import RemoteBackend

_COLUMNS = ("NAME", "SIZE", "TYPE", "CONTEXT", "ARCHITECTURE", "LICENSE", "SOURCE")
_WIDEST = 100
"""Characters of a value that are shown."""


class ModelFacts(TypedDict):
    """What `--json` writes of a model. Only an installed one has a path, and only one that cannot be read an error."""

    name: str
    path: NotRequired[str]
    size: NotRequired[int | None]
    quantization: NotRequired[str | None]
    context: NotRequired[int | None]
    architecture: NotRequired[str | None]
    license: NotRequired[str | None]
    source: NotRequired[str | None]
    commit: NotRequired[str | None]
    error: NotRequired[str]


@click.group("models", invoke_without_command=True)
@options.elsewhere
@options.as_json
@click.pass_context
def command(context: click.Context, /, json: bool, **params: Any) -> None:
    """List the installed models, or those of a backend elsewhere."""
    if context.invoked_subcommand is None:
        _list(options.load(params), json)


@command.command("show")
@click.argument("name")
@options.as_json
def show(name: str, json: bool) -> None:
    """Show everything that a model's file and its record say."""
    model = resolve(name, options.load({}).paths.models)
    facts, record = installed_facts(model), read_record(model.path).known()
    if json:
        output.print_json({**facts, "metadata": model.metadata, "record": record})
    else:
        output.print_result(output.format_table(_details(facts, model.metadata, record)))


@command.command("rm")
@click.argument("name")
@yes_flag
def remove(name: str, yes: bool) -> None:
    """Delete a model with its record, its licence files and its report."""
    folder = options.load({}).paths.models
    model = resolve(name, folder)
    demo = demo_model()
    if demo and model.path == demo.path:
        raise UsageError(
            f"{DEMO_NAME} belongs to the package {DEMO_PACKAGE}: `pip uninstall {DEMO_PACKAGE}` removes it"
        )
    if model.path.parent != folder:
        raise UsageError(f"{model.path} is not in {folder}, so it is not removed")
    files = files_of(model.path)
    if not yes:
        confirm_deletion([f"{table_cell(path.name)}  {size_text(path.stat().st_size)}" for path in files])
    for path in files:
        path.unlink()


def _list(setup: Setup, json: bool) -> None:
    elsewhere = options.remote(setup.settings)
    models = _served(elsewhere) if elsewhere else [installed_facts(model) for model in installed(setup.paths.models)]
    if json:
        output.print_json(models)
    elif models:
        output.print_result(output.format_table([_COLUMNS, *map(model_row, models)]))
    else:
        output.print_note(
            f"llama-chat: no model is installed in {setup.paths.models}; `llama-chat pull llama2:7b-chat` fetches one"
        )


def installed_facts(model: InstalledModel) -> ModelFacts:
    """What is known of an installed model; of a file that cannot be read, why."""
    try:
        record = read_record(model.path)
        license_name = record.license or model.metadata.get("general.license")
        return {
            "name": model.name,
            "path": str(model.path),
            "size": model.size,
            "quantization": model.quantization,
            "context": model.context,
            "architecture": model.architecture,
            "license": None if license_name is None else str(license_name),
            "source": record.source.repository,
            "commit": record.source.commit,
        }
    except (ModelUnreadable, OSError) as error:
        return {"name": model.name, "path": str(model.path), "error": str(error)}


def served_facts(model: ModelInfo) -> ModelFacts:
    """What a backend elsewhere says of a model."""
    meta = model.meta
    return {
        "name": model.id,
        "size": meta.size if meta else None,
        "quantization": meta.quantization if meta else None,
        "context": meta.context if meta else None,
        "architecture": meta.architecture if meta else None,
        "license": None,
        "source": None,
        "commit": None,
    }


def model_row(facts: ModelFacts) -> tuple[str, ...]:
    """A model as a row of the table."""
    if "error" in facts:
        return facts["name"], "", "", "", facts["error"], "", ""
    size, context = facts.get("size"), facts.get("context")
    return (
        facts["name"],
        "" if size is None else size_text(size),
        facts.get("quantization") or "",
        "" if context is None else str(context),
        facts.get("architecture") or "",
        facts.get("license") or "",
        "@".join(filter(None, [facts.get("source"), (facts.get("commit") or "")[:8]])),
    )


def _details(facts: ModelFacts, metadata: dict[str, Any], record: dict[str, Any]) -> list[tuple[str, ...]]:
    """All facts as rows; long values are cut."""
    shown = {key: record[key] for key in ("created", "imatrix", "warnings", "versions", "seconds") if record.get(key)}
    rows = {**facts, **metadata, **shown}
    return [(str(key), _short(value)) for key, value in rows.items() if value is not None]


def _short(value: object) -> str:
    text = one_line(str(value))
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _served(backend: RemoteBackend) -> list[ModelFacts]:
    import asyncio

    return [served_facts(model) for model in asyncio.run(_ask_models(backend))]


async def _ask_models(backend: RemoteBackend) -> list[ModelInfo]:
    async with aclosing(backend):
        return await backend.models()
