"""`llama-chat convert`: weights of others become a model of ours."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.commands.pull import fetch
from llama_chat.cli.conversion import conversion, convert_options, hub, option, show_outcome, show_plan, stages


@click.command("convert")
@click.argument("source", metavar="SOURCE")
@option("out", "--out", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write here.")
@hub
@conversion
@options.as_json
def command(source: str, out: Path | None, json: bool, **params: Any) -> None:
    """Convert weights to GGUF, quantise and check them.

    SOURCE is a folder in Hugging Face's layout (safetensors, or PyTorch's .bin) or in Meta's own (consolidated.*.pth),
    or OWNER/REPO of a hub. A file gets its name only when it is complete and computes; an interrupted run goes on.
    """
    target = out or options.load({}).paths.models
    # Unlike those of Path these two functions answer for any text.
    folder = Path(os.path.expanduser(source))  # noqa: PTH111
    found = os.path.exists(folder)  # noqa: PTH110
    if not found and source.count("/") == 1 and not source.startswith((".", "~")):
        fetch(source, target, json, {**params, "official": True})
        return
    with stages(json) as listener:
        from llama_convert.convert import convert, plan_conversion

        chosen = convert_options(params, target)
        if params["plan"]:
            show_plan(plan_conversion(folder, chosen), json)
        else:
            show_outcome(convert(folder, chosen, listener), json)
