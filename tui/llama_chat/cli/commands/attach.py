"""`llama-chat attach`: the chat on a backend elsewhere."""

from __future__ import annotations

from typing import Any

import click

from llama_chat.cli import options
from llama_chat.cli.commands.chat import open_or_answer


@click.command("attach")
@click.argument("target")
@options.attached
def command(target: str, **params: Any) -> None:
    """Chat on the backend at TARGET.

    TARGET is http://… or https://…, the NAME of a [targets.NAME] in config.toml, or kube://namespace/service[:port],
    which runs `kubectl port-forward` as long as the chat lives; ?context=NAME and ?secret=NAME choose the kubeconfig's
    context and the Secret with the API key. Other keys come from LLAMA_CHAT_API_KEY, a file or the keyring.
    """
    open_or_answer({**params, "target": target})
