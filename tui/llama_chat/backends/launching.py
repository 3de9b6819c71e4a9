"""The server of the local backend: which settings it gets, and how it is found or started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from llama_backend.client.launch import RuntimeFiles, ensure, find
from llama_backend.host.kv_state_folder import clear_states
from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig
from llama_chat.errors import ChatError, ConfigError
from llama_chat.paths import Paths, make_runtime
from llama_chat.settings import BACKGROUND_IDLE_EXIT

if TYPE_CHECKING:
    from llama_backend.client.http_client import Address
    from llama_backend.models.installed import InstalledModel
    from llama_chat.settings import Settings

_MIB = 1 << 20


def start(settings: Settings, paths: Paths, model: InstalledModel) -> Address:
    """The address of the local backend; blocks while a process starts, not while its model loads."""
    make_runtime(paths.runtime)
    try:
        return ensure(runtime_files(paths), server_config(settings, paths, model))
    except OSError as error:
        raise ChatError(f"the backend cannot be started: {error}") from error


def runtime_files(paths: Paths) -> RuntimeFiles:
    """The socket, lock and log of the background backend."""
    return RuntimeFiles(folder=paths.runtime, log=paths.log)


def kv_folder(settings: Settings, paths: Paths) -> Path:
    """The folder in which KV states are kept on disk."""
    return Path(settings.kv_cache_dir).expanduser().absolute() if settings.kv_cache_dir else paths.kv_states


async def clear_kv_states(settings: Settings, paths: Paths) -> None:
    """Deletes the KV states of all conversations, in the memory of a running backend and on disk."""
    address = find(runtime_files(paths))
    if address is not None:
        from llama_backend.client.http_client import Client

        async with Client(address, wait=0) as client:
            await client.clear_kv_states()
    await asyncio.to_thread(clear_states, kv_folder(settings, paths))


def server_config(settings: Settings, paths: Paths, model: InstalledModel) -> ServerConfig:
    """The configuration of a background backend; raises ConfigError for settings that exclude each other."""
    _check(settings)
    engine = EngineConfig(
        path=str(model.path),
        context=settings.ctx_size,
        slots=settings.parallel,
        threads=settings.threads,
        gpu_layers=None if settings.gpu_layers == "auto" else settings.gpu_layers,
        tensor_split=[float(part) for part in settings.tensor_split.split(",")] if settings.tensor_split else None,
        main_gpu=settings.main_gpu,
        kv_type=settings.kv_type,
        kv_unified={"auto": None, "unified": True, "split": False}[settings.kv_layout],
        kv_cells=settings.kv_cells,
        kv_sharing=settings.kv_sharing,
        flash_attention={"auto": None, "on": True, "off": False}[settings.flash_attention],
        batch=settings.batch_size,
        ubatch=settings.ubatch_size,
        kv_folder=str(kv_folder(settings, paths)),
        kv_disk=settings.kv_cache_size * _MIB,
        kv_ram=settings.kv_cache_ram * _MIB,
        speculation=settings.speculation != "off",
        draft_model=_draft_model(settings, paths),
    )
    idle_exit = BACKGROUND_IDLE_EXIT if settings.idle_exit is None else settings.idle_exit
    return ServerConfig(model=model.name, engine=engine, idle_exit=idle_exit or None)


def _check(settings: Settings) -> None:
    if settings.kv_type != "f16" and settings.flash_attention == "off":
        raise ConfigError(f"kv_type {settings.kv_type} needs flash attention, but flash_attention is off")
    if settings.kv_cells is not None and settings.kv_layout == "split":
        raise ConfigError("kv_cells is the size of a shared pool, but kv_layout is split; give either")
    if settings.tensor_split is not None and settings.main_gpu is not None:
        raise ConfigError("tensor_split spreads the model over GPUs, but main_gpu puts it on one; give either")
    if settings.tensor_split is not None and not any(map(float, settings.tensor_split.split(","))):
        raise ConfigError(f"tensor_split: at least one part must be above 0, got {settings.tensor_split!r}")


def _draft_model(settings: Settings, paths: Paths) -> str | None:
    if settings.draft_model is None:
        return None
    from llama_backend.models.installed import resolve

    return str(resolve(settings.draft_model, paths.models).path)
