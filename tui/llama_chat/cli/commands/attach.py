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

    TARGET is the URL of a backend (http://… or https://…), the name of a target in config.toml, or a Service in a
    Kubernetes cluster: kube://NAMESPACE/SERVICE[:PORT], to which `kubectl port-forward` connects as long as the chat is
    open. At its end, ?context=NAME chooses a context of the kubeconfig, and ?secret=NAME the Secret with the API key.

    The key for another backend comes from LLAMA_CHAT_API_KEY, a file or the keyring.
    """
    open_or_answer({**params, "target": target})
