"""Runs a server.

The engine is started first, so that it loads its model while the server imports the rest. That is why modules that are
not needed to start the engine are imported inside the functions below.
"""

from __future__ import annotations

import signal
import socket
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING
from unicodedata import category

import msgspec

from llama_backend.errors import InvalidRequest
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.server.listen.sockets import inode_of, is_loopback, open_sockets, remove_socket
from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig

if TYPE_CHECKING:
    from llama_backend.server.state import ServerState

_CLOSE_SECONDS = 5
"""Seconds that uvicorn waits for connections to close; only the last bytes of answers are still to be sent then."""


def run(config: ServerConfig) -> int:
    """Serves until a signal or idle time ends it; returns the exit code. Raises InvalidRequest for bad settings."""
    _check(config)
    with ExitStack() as stack:
        sockets = _open(config, stack)
        process = EngineProcess(config.engine)
        stack.callback(process.kill)
        return _run(config, sockets, process)


def _open(config: ServerConfig, stack: ExitStack) -> list[socket.socket]:
    """The listening sockets. From now on the Unix socket's file is removed however the server ends."""
    signal.signal(signal.SIGTERM, _leave)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sockets = open_sockets(config)
    stack.callback(remove_socket, config.socket, inode_of(config.socket))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return sockets


def _leave(_number: int, _frame: FrameType | None) -> None:
    """Handles SIGTERM until the server has its own handler."""
    sys.exit(0)


def _run(config: ServerConfig, sockets: list[socket.socket], process: EngineProcess) -> int:
    import asyncio

    import uvloop

    from llama_backend.server.log_setup import set_up_log

    set_up_log(config.log_format)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, sockets, process))
    return 0


async def _serve(config: ServerConfig, sockets: list[socket.socket], process: EngineProcess) -> None:
    import asyncio

    import uvicorn

    from llama_backend.server.http.asgi_app import make_app
    from llama_backend.server.lifecycle import Lifecycle
    from llama_backend.server.listen.http_protocol import BoundedProtocol
    from llama_backend.server.watchdog import watch

    server = _make_server(config, process)
    server.models.first.load()
    settings = uvicorn.Config(
        make_app(server),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
    lifecycle = Lifecycle(settings, server)
    watchers = [
        asyncio.create_task(server.models.watch_idle()),
        asyncio.create_task(watch(server.models, config.stall)),
    ]
    if config.idle_exit is not None:
        watchers.append(asyncio.create_task(lifecycle.watch_idle(config.idle_exit)))
    try:
        await lifecycle.serve(sockets)
    finally:
        for watcher in watchers:
            watcher.cancel()
        await server.models.stop()


def _make_server(config: ServerConfig, process: EngineProcess) -> ServerState:
    from llama_backend.server.access.admission import Admission
    from llama_backend.server.access.api_keys import KeyFile
    from llama_backend.server.access.auth import Authenticator
    from llama_backend.server.engines.pool import ModelPool
    from llama_backend.server.engines.served_model import ServedModel
    from llama_backend.server.state import ServerState
    from llama_backend.server.streaming.streams import Streams

    keys = KeyFile(Path(config.api_key_file)) if config.api_key_file else None
    first = ServedModel(config.model, config.engine, process)
    return ServerState(
        config=config,
        models=ModelPool(first, lambda: installed_engines(config), config.models_max, config.model_idle),
        authenticator=Authenticator(keys, config.allow_origins),
        admission=Admission(config.max_queue),
        streams=Streams(config.resume_grace),
    )


def installed_engines(config: ServerConfig) -> dict[str, EngineConfig]:
    """The models in the folder, each with the first model's settings but without its draft model.

    A model whose path is not text is left out, since no request could name it.
    """
    from llama_backend.models.installed import installed

    if config.models_folder is None:
        return {}
    found = installed(Path(config.models_folder))
    return {
        model.name: msgspec.structs.replace(config.engine, path=str(model.path), draft_model=None)
        for model in found
        if _is_text(str(model.path))
    }


def _is_text(path: str) -> bool:
    """Whether a path can be written in JSON and in one line of a log; a file's name can have any bytes except zero."""
    return not any(category(character) in ("Cc", "Cs") for character in path)


def _check(config: ServerConfig) -> None:
    """Raises InvalidRequest for a path that is not text, half a TLS certificate, and a public port without API keys."""
    for path in (config.engine.path, config.engine.draft_model or ""):
        if not _is_text(path):
            raise InvalidRequest(
                f"the model's path {path!a} has characters that cannot be shown; give the file another name"
            )
    if (config.tls_cert is None) != (config.tls_key is None):
        raise InvalidRequest("--tls-cert and --tls-key go together: give both or neither", param="tls_cert")
    if config.host is None or config.api_key_file is not None:
        return
    if not is_loopback(config.host):
        text = f"{config.host} can be reached from other machines, so keys are needed: give --api-key-file"
        raise InvalidRequest(text, param="host")
