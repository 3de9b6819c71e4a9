"""`llama-chat serve`: the backend in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from llama_chat.cli import options
from llama_chat.cli.options import Setup
from llama_chat.errors import ChatError
from llama_chat.paths import Paths, make_runtime
from llama_chat.settings import in_section

if TYPE_CHECKING:
    from llama_backend.models.installed import InstalledModel
    from llama_backend.server_config import ServerConfig


@click.command("serve")
@options.settings("model", *in_section("serve"), "api_key_file", *in_section("compute"))
def command(**params: Any) -> int:
    """Run the backend in the foreground.

    It serves the OpenAI-compatible API on TCP, and on the Unix socket where chats on this machine look for it. Without
    a key file, TCP is limited to this machine.
    """
    from llama_backend.models.installed import resolve
    from llama_backend.server.main import run

    setup = options.load(params)
    model = resolve(setup.settings.model, setup.paths.models)
    return run(_config(setup, model))


def _config(setup: Setup, model: InstalledModel) -> ServerConfig:
    from llama_chat.backends.launching import server_config

    settings = setup.settings
    return structs.replace(
        server_config(settings, setup.paths, model),
        host=_host(setup),
        port=settings.port,
        socket=_absolute(settings.socket) or _usual_socket(setup.paths),
        api_key_file=_absolute(settings.api_key_file),
        tls_cert=_absolute(settings.tls_cert),
        tls_key=_absolute(settings.tls_key),
        resume_grace=settings.resume_grace,
        log_format=settings.log_format,
        allow_origins=_listed(settings.allow_origin),
        metrics_open=settings.metrics_open,
        models_folder=str(setup.paths.models),
        models_max=settings.models_max,
        model_idle=settings.model_idle or None,
        idle_exit=settings.idle_exit or None,
        request_timeout=settings.request_timeout or None,
        drain=settings.drain,
    )


def _host(setup: Setup) -> str | None:
    """The address for TCP; None where only a socket is asked for."""
    on_socket_only = setup.settings.socket is not None and setup.config.sources["port"] == "default"
    return setup.settings.host or (None if on_socket_only else "127.0.0.1")


def _usual_socket(paths: Paths) -> str:
    """The socket where front ends on this machine look; raises ChatError where a backend listens there already."""
    from llama_backend.client.launch import find
    from llama_chat.backends.launching import runtime_files

    make_runtime(paths.runtime)
    if find(runtime_files(paths)) is not None:
        raise ChatError("a backend is running already; `llama-chat stop` ends it, or give this one another --socket")
    return str(paths.socket)


def _listed(text: str | None) -> tuple[str, ...]:
    """The parts of a list with commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().absolute()) if path else None
