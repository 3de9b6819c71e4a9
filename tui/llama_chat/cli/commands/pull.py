"""`llama-chat pull`: a model from a hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llama_chat.cli import options
from llama_chat.cli.conversion import conversion, convert_options, hub, show_outcome, show_plan, stages
from llama_chat.cli.options import flag

if TYPE_CHECKING:
    from pathlib import Path


@click.command("pull")
@click.argument("target", metavar="NAME")
@flag("official", "--official", help="Take the makers' own weights of a catalogue name, and convert them.")
@hub
@conversion
@options.as_json
def command(target: str, json: bool, **params: Any) -> None:
    """Fetch a model and install it.

    NAME is llama2:7b, 13b or 70b, each with -chat too, or smollm2:135m, or OWNER/REPO[:QUANT] of a hub. A repository
    with GGUF files is installed as it is, one with weights is converted. Downloads go on where they stopped.
    HF_TOKEN opens gated repositories; HF_HUB_OFFLINE uses only what is here.
    """
    fetch(target, options.load({}).paths.models, json, params)


def fetch(target: str, models: Path, json: bool, params: dict[str, Any]) -> None:
    """Run `pull`, or only show its plan."""
    with stages(json) as listener:
        from llama_convert.hub.catalogue import parse_target
        from llama_convert.pull import PullOptions, plan_pull, pull

        wanted = parse_target(target, official=params["official"])
        chosen = PullOptions(
            models=models,
            revision=params["revision"],
            endpoint=params["endpoint"],
            send_token=params["send_token"],
            keep_source=params["keep_source"],
            force=params["force"],
            conversion=convert_options({**params, "quant": None}, models),
            quant=params["quant"],
        )
        if params["plan"]:
            show_plan(plan_pull(wanted, chosen), json)
        else:
            show_outcome(pull(wanted, chosen, listener), json)
