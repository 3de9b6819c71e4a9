"""`llama-chat pull`: a model from a hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from llama_chat.cli import options
from llama_chat.cli.conversion_options import conversion, convert_options, hub, quant_option
from llama_chat.cli.display.conversion_results import print_outcome, print_plan
from llama_chat.cli.display.stages import shown_stages
from llama_chat.cli.options import call_flag

if TYPE_CHECKING:
    from pathlib import Path


@click.command("pull")
@click.argument("target", metavar="NAME")
@quant_option(
    "Quantisation to install, of those that the repository has; OWNER/REPO:TYPE does the same. If weights are"
    " converted: the quantisations to make. Q4_K_M,Q8_0 makes two files; F16, BF16 or F32 makes one that is not"
    " quantised."
)
@call_flag("official", "--official", help="Take the weights that the model's makers publish, and convert them.")
@hub
@conversion
@options.as_json
def command(target: str, json: bool, **params: Any) -> None:
    """Fetch a model and install it.

    NAME is llama2:7b, llama2:13b, llama2:70b, any of these with -chat, smollm2:135m, or a repository of a hub:
    OWNER/REPO[:TYPE]. If the repository has GGUF files, the one of that quantisation is installed; if it has weights,
    they are converted. An interrupted download continues where it stopped.

    HF_TOKEN opens gated repositories; HF_HUB_OFFLINE=1 uses only what was fetched before.
    """
    fetch(target, options.load({}).paths.models, json, params)


def fetch(target: str, models: Path, json: bool, params: dict[str, Any]) -> None:
    """Runs `pull`, or only shows its plan."""
    with shown_stages(json) as listener:
        from llama_convert.hub.catalogue import parse_target
        from llama_convert.pull import PullOptions, plan_pull, pull

        wanted = parse_target(target, official=params["official"])
        chosen = PullOptions(
            conversion=convert_options(params, models),
            quant=None if wanted.quantization and _is_from_environment("quant") else params["quant"],
            revision=params["revision"],
            endpoint=params["endpoint"],
            send_token=params["send_token"],
            keep_source=params["keep_source"],
        )
        if params["plan"]:
            print_plan(plan_pull(wanted, chosen), json)
        else:
            print_outcome(pull(wanted, chosen, listener), json)


def _is_from_environment(name: str) -> bool:
    """Whether an option's value is that of its variable, which counts less than what was typed."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.ENVIRONMENT
