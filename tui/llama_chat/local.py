"""The local backend: how the settings describe it, and how it is found or started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_backend.config import ServerConfig
from llama_backend.ipc import EngineConfig
from llama_backend.launch import Place, ensure
from llama_chat.errors import ChatError
from llama_chat.paths import Paths, make_runtime

if TYPE_CHECKING:
    from llama_backend.client import Address
    from llama_backend.models import InstalledModel
    from llama_chat.config import Settings

IDLE_EXIT = 600.0
"""Seconds without a request until a background backend ends."""


def start(settings: Settings, paths: Paths, model: InstalledModel) -> Address:
    """Where the local backend listens; blocks for as long as a process takes to start, not for its model."""
    make_runtime(paths.runtime)
    try:
        return ensure(place(paths), server_config(settings, model))
    except OSError as error:
        raise ChatError(f"the backend cannot be started: {error}") from error


def place(paths: Paths) -> Place:
    """Where the background backend's socket and log are."""
    return Place(folder=paths.runtime, log=paths.log)


def server_config(settings: Settings, model: InstalledModel) -> ServerConfig:
    """A background backend for `model`."""
    engine = EngineConfig(
        path=str(model.path),
        context=settings.ctx_size,
        slots=settings.parallel,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
    )
    idle_exit = IDLE_EXIT if settings.idle_exit is None else settings.idle_exit
    return ServerConfig(model=model.name, engine=engine, idle_exit=idle_exit or None)
