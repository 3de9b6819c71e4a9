"""`llama-chat convert`: weights from elsewhere become a GGUF model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.commands.pull import fetch
from llama_chat.cli.conversion_options import conversion, convert_options, hub, quant_option
from llama_chat.cli.display.conversion_results import print_outcome, print_plan
from llama_chat.cli.display.stages import shown_stages
from llama_chat.cli.options import call_option
from llama_convert.quant.file_types import DEFAULT


@click.command("convert")
@click.argument("source", metavar="SOURCE")
@quant_option("Quantisations to make; F16, BF16 or F32 makes a file without quantisation.")
@call_option(
    "out",
    "--out",
    kind=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder to write to, instead of the one with the models.",
)
@hub
@conversion
@options.as_json
def command(source: str, out: Path | None, json: bool, **params: Any) -> None:
    """Convert weights to GGUF, quantise and check them.

    SOURCE is a folder in Hugging Face's layout (safetensors, or PyTorch's .bin) or in Meta's (consolidated.*.pth), or
    the repository OWNER/REPO of a hub. A model is moved into place only after it has loaded and generated tokens.
    After an interruption, the same command continues where it stopped.
    """
    target = out or options.load({}).paths.models
    # Unlike the methods of Path, these two functions accept any text.
    folder = Path(os.path.expanduser(source))  # noqa: PTH111
    exists = os.path.exists(folder)  # noqa: PTH110
    if not exists and source.count("/") == 1 and not source.startswith((".", "~")):
        fetch(source, target, json, {**params, "official": True})
        return
    with shown_stages(json) as listener:
        from llama_convert.convert import convert, plan_conversion

        wanted = convert_options(params, target).with_kinds(params["quant"] or DEFAULT)
        if params["plan"]:
            print_plan(plan_conversion(folder, wanted), json)
        else:
            print_outcome(convert(folder, wanted, listener), json)
