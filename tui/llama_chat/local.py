"""The local backend: how the settings describe it, and how it is found or started."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_backend.config import ServerConfig
from llama_backend.ipc import EngineConfig
from llama_backend.kv_folder import clear_states
from llama_backend.launch import Place, ensure, find
from llama_chat.errors import ChatError
from llama_chat.paths import Paths, make_runtime

if TYPE_CHECKING:
    from llama_backend.client import Address
    from llama_backend.models import InstalledModel
    from llama_chat.config import Settings

IDLE_EXIT = 600.0
"""Seconds without a request until a background backend ends."""

_MIB = 1 << 20


def start(settings: Settings, paths: Paths, model: InstalledModel) -> Address:
    """Where the local backend listens; blocks for as long as a process takes to start, not for its model."""
    make_runtime(paths.runtime)
    try:
        return ensure(place(paths), server_config(settings, paths, model))
    except OSError as error:
        raise ChatError(f"the backend cannot be started: {error}") from error


def place(paths: Paths) -> Place:
    """Where the background backend's socket and log are."""
    return Place(folder=paths.runtime, log=paths.log)


def kv_folder(settings: Settings, paths: Paths) -> Path:
    """Where KV states are on disk."""
    return Path(settings.kv_cache_dir).expanduser().absolute() if settings.kv_cache_dir else paths.kv_states


async def forget(settings: Settings, paths: Paths) -> None:
    """Removes the KV states of all conversations: through the backend where one runs, which has more in memory."""
    address = find(place(paths))
    if address is not None:
        from llama_backend.client import Client

        async with Client(address, wait=0) as client:
            await client.forget()
    clear_states(kv_folder(settings, paths))


def server_config(settings: Settings, paths: Paths, model: InstalledModel) -> ServerConfig:
    """A background backend for `model`."""
    engine = EngineConfig(
        path=str(model.path),
        context=settings.ctx_size,
        slots=settings.parallel,
        threads=settings.threads,
        gpu_layers=settings.gpu_layers,
        kv_folder=str(kv_folder(settings, paths)),
        kv_disk=settings.kv_cache_size * _MIB,
        kv_ram=settings.kv_cache_ram * _MIB,
        speculation=settings.speculation != "off",
    )
    idle_exit = IDLE_EXIT if settings.idle_exit is None else settings.idle_exit
    return ServerConfig(model=model.name, engine=engine, idle_exit=idle_exit or None)
