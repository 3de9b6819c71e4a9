"""`llama-chat serve`: the backend in the foreground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from msgspec import structs

from llama_chat.cli import options
from llama_chat.cli.options import Setup, setting, switch
from llama_chat.errors import ChatError
from llama_chat.paths import Paths, make_runtime

if TYPE_CHECKING:
    from llama_backend.models.installed import InstalledModel
    from llama_backend.server_config import ServerConfig


@click.command("serve")
@options.model
@setting("host", "--host", metavar="ADDRESS", help="Listen on TCP here; 127.0.0.1 unless --socket is given.")
@setting("port", "--port", metavar="N", help="TCP port, 8080.")
@setting("socket", "--socket", metavar="PATH", help="Listen on this Unix socket, instead of the one that chats find.")
@setting("api_key_file", "--api-key-file", metavar="FILE", help="Ask for one of the keys in FILE on TCP.")
@setting(
    "allow_origin",
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Let web pages of this origin use the server; may be repeated.",
)
@setting("tls_cert", "--tls-cert", metavar="FILE", help="Speak HTTPS on TCP with this certificate chain (PEM).")
@setting("tls_key", "--tls-key", metavar="FILE", help="Its private key; both are read again when they change.")
@switch("metrics_open", "--metrics-open/--metrics-guarded", help="Whether /metrics needs no key.")
@setting("ctx_size", "--ctx-size", metavar="N", help="Tokens of one conversation.")
@setting("parallel", "--parallel", metavar="N", help="Answers at the same time, each with a context of its own.")
@setting("threads", "--threads", metavar="N", help="CPU threads; otherwise chosen while it works.")
@setting("gpu_layers", "--gpu-layers", metavar="auto|N", help="Layers on GPUs, -1 for all; auto is what fits.")
@setting("tensor_split", "--tensor-split", metavar="A,B,…", help="Parts of the model for each GPU.")
@setting("main_gpu", "--main-gpu", metavar="N", help="Use this GPU only, counted from 0.")
@setting("kv_type", "--kv-type", metavar="TYPE", help="Of keys and values: f16, q8_0 or q4_0.")
@setting("kv_cells", "--kv-cells", metavar="N", help="Tokens in the pool that all answers share; one context at least.")
@setting("kv_layout", "--kv-layout", metavar="LAYOUT", help="Of KV cells: unified, split or auto.")
@setting("flash_attention", "--flash-attention", metavar="on|off|auto", help="Flash attention.")
@setting("batch_size", "--batch-size", metavar="N", help="Most tokens of a step.")
@setting("ubatch_size", "--ubatch-size", metavar="N", help="Most tokens that are computed at once in a step.")
@setting("kv_cache_dir", "--kv-cache-dir", metavar="FOLDER", help="Where KV states of conversations are kept.")
@setting("kv_cache_size", "--kv-cache-size", metavar="MIB", help="Most of them on disk, 2048; 0 keeps none.")
@setting("kv_cache_ram", "--kv-cache-ram", metavar="MIB", help="Most of them in RAM beside the context, 256.")
@setting("kv_sharing", "--kv-sharing", metavar="account|all", help="Who finds what was computed before, account.")
@setting("models_max", "--models-max", metavar="N", help="Serve all installed models, N of them loaded at a time.")
@setting("model_idle", "--model-idle", metavar="SECONDS", help="Unload a model after as long without a request.")
@setting("speculation", "--speculation", metavar="auto|off", help="Guess repeated text ahead where that pays, auto.")
@setting(
    "draft_model", "--draft-model", metavar="NAME|PATH", help="Smaller model of the same vocabulary that guesses too."
)
@setting("request_timeout", "--request-timeout", metavar="SECONDS", help="Most that a request may take; 0: no limit.")
@setting("resume_grace", "--resume-grace", metavar="SECONDS", help="How long an answer waits for a lost client, 30.")
@setting("drain", "--drain", metavar="SECONDS", help="How long running answers may go on after SIGTERM, 30.")
@setting("idle_exit", "--idle-exit", metavar="SECONDS", help="End after as long without a request; 0 is never.")
@setting("log_format", "--log-format", metavar="text|json", help="What the lines of the log are.")
def command(**params: Any) -> int:
    """Run the backend in the foreground.

    The OpenAI-compatible API is served on TCP, and on the Unix socket where chats on this machine find it.
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
    """Where only a socket is asked for, TCP is not opened."""
    on_socket_only = setup.settings.socket is not None and setup.config.sources["port"] == "default"
    return setup.settings.host or (None if on_socket_only else "127.0.0.1")


def _usual_socket(paths: Paths) -> str:
    """Where front ends on this machine look; raises ChatError where a backend listens there already."""
    from llama_backend.client.launch import find
    from llama_chat.backends.launching import runtime_files

    make_runtime(paths.runtime)
    if find(runtime_files(paths)) is not None:
        raise ChatError("a backend is running already; `llama-chat stop` ends it, --socket puts this one elsewhere")
    return str(paths.socket)


def _listed(text: str | None) -> tuple[str, ...]:
    """The parts of a text with commas."""
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


def _absolute(path: str | None) -> str | None:
    return str(Path(path).expanduser().absolute()) if path else None
