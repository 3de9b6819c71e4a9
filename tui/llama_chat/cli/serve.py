"""`llama-chat serve`: the backend in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from llama_chat.cli import options
from llama_chat.cli.options import Setup, setting
from llama_chat.paths import Paths, make_runtime

if TYPE_CHECKING:
    from llama_backend.config import ServerConfig
    from llama_backend.models import InstalledModel


@click.command("serve")
@options.model
@setting("host", "--host", metavar="ADDRESS", help="Listen on TCP here; 127.0.0.1 unless --socket is given.")
@setting("port", "--port", metavar="N", help="TCP port, 8080.")
@setting("socket", "--socket", metavar="PATH", help="Listen on this Unix socket, instead of the one that chats find.")
@setting("api_key_file", "--api-key-file", metavar="FILE", help="Ask for one of the keys in FILE on TCP.")
@setting("ctx_size", "--ctx-size", metavar="N", help="Tokens of one conversation.")
@setting("parallel", "--parallel", metavar="N", help="Answers at the same time, each with a context of its own.")
@setting("threads", "--threads", metavar="N", help="CPU threads.")
@setting("gpu_layers", "--gpu-layers", metavar="N", help="Layers on the GPU, -1 for all.")
@setting("idle_exit", "--idle-exit", metavar="SECONDS", help="End after as long without a request; 0 is never.")
def command(**params: Any) -> int:
    """Run the backend in the foreground.

    The OpenAI-compatible API is served on TCP, and on the Unix socket where chats on this machine find it.
    """
    from llama_backend.models import resolve
    from llama_backend.server.main import run

    setup = options.load(params)
    model = resolve(setup.settings.model, setup.paths.models)
    return run(_config(setup, model))


def _config(setup: Setup, model: InstalledModel) -> ServerConfig:
    from llama_chat.connection import server_config

    settings = setup.settings
    return structs.replace(
        server_config(settings, model),
        host=settings.host or (None if settings.socket else "127.0.0.1"),
        port=settings.port,
        socket=str(Path(settings.socket).expanduser().absolute() if settings.socket else _usual_socket(setup.paths)),
        api_key_file=settings.api_key_file and str(Path(settings.api_key_file).expanduser()),
        idle_exit=settings.idle_exit or None,
    )


def _usual_socket(paths: Paths) -> Path:
    """Where front ends on this machine look."""
    make_runtime(paths.runtime)
    return paths.socket
