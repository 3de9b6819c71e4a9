"""`llama-chat models`: what is installed, or what a backend elsewhere serves; one model in full; removing one."""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_backend.errors import ModelUnreadable
from llama_backend.models.installed import InstalledModel, installed, resolve
from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.display.units import size_text
from llama_chat.cli.options import Setup
from llama_chat.errors import ExitCode, UsageError
from llama_chat.plain_text import cell, one_line
from llama_convert.record import files_of, read_record

if TYPE_CHECKING:
    from llama_backend.wire.api import ModelInfo
    from llama_chat.backends.remote import RemoteConnection

_HEAD = ("NAME", "SIZE", "TYPE", "CONTEXT", "ARCHITECTURE", "LICENSE", "SOURCE")
_WIDEST = 100
"""Characters of a value that are shown."""


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
    facts = _facts(model) | {"metadata": model.metadata, "record": read_record(model.path).known()}
    if json:
        output.write_json(facts)
    else:
        output.write(output.table(_details(facts)))


@command.command("rm")
@click.argument("name")
@click.option("sure", "-y", "--yes", is_flag=True, help="Do not ask.")
def remove(name: str, sure: bool) -> None:
    """Delete a model, its record and its licence files."""
    folder = options.load({}).paths.models
    model = resolve(name, folder)
    if model.path.parent != folder:
        raise UsageError(f"{model.path} is not in {folder}, so it is not removed")
    files = files_of(model.path)
    if not sure and not _confirmed(files):
        raise click.exceptions.Exit(ExitCode.FAILURE)
    for path in files:
        path.unlink()


def _list(setup: Setup, json: bool) -> None:
    elsewhere = options.remote(setup.settings)
    models = _served(elsewhere) if elsewhere else _installed(setup)
    if json:
        output.write_json(models)
    elif models:
        output.write(
            output.table([("NAME", "SIZE", "TYPE", "CONTEXT", "ARCHITECTURE", "LICENSE", "SOURCE"), *map(_row, models)])
        )
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
            **_origin(model),
        }
    except (ModelUnreadable, OSError) as error:
        return facts | {"error": str(error)}


def _origin(model: InstalledModel) -> dict[str, Any]:
    """Licence, repository and commit, as far as the record or the file knows."""
    record = read_record(model.path)
    return {
        "license": record.license or model.metadata.get("general.license"),
        "source": record.source.repository,
        "commit": record.source.commit,
    }


def _confirmed(files: list[Path]) -> bool:
    """Asks the person."""
    if not sys.stdin.isatty():
        raise UsageError("--yes is needed where nobody can be asked")
    for path in files:
        output.note(f"{cell(path.name)}  {size_text(path.stat().st_size)}")
    return click.confirm("Delete this for good?", err=True)


def _details(facts: dict[str, Any]) -> list[tuple[str, ...]]:
    """All facts as rows; long values are cut."""
    metadata, record = facts.pop("metadata"), facts.pop("record")
    plain = {key: record[key] for key in ("created", "imatrix", "warnings", "versions", "seconds") if record.get(key)}
    rows = {**facts, **metadata, **plain}
    return [(str(key), _short(value)) for key, value in rows.items() if value is not None]


def _short(value: Any) -> str:
    text = one_line(str(value))
    return text if len(text) <= _WIDEST else f"{text[:_WIDEST]}…"


def _served(backend: RemoteConnection) -> list[dict[str, Any]]:
    import asyncio

    names = ("size", "quantization", "context", "architecture", "license", "source", "commit")
    models = asyncio.run(_ask_models(backend))
    return [{"name": model.id, **{name: getattr(model.meta, name, None) for name in names}} for model in models]


async def _ask_models(backend: RemoteConnection) -> list[ModelInfo]:
    async with aclosing(backend):
        return await backend.models()


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    if "error" in facts:
        return facts["name"], "", "", "", facts["error"], "", ""
    size = size_text(facts["size"]) if facts["size"] is not None else ""
    rest = (facts[name] for name in ("quantization", "context", "architecture"))
    cells = ["" if value is None else str(value) for value in rest]
    return facts["name"], size, *cells, facts["license"] or "", _source_text(facts)


def _source_text(facts: dict[str, Any]) -> str:
    commit = (facts["commit"] or "")[:8]
    return "@".join(filter(None, [facts["source"], commit]))
