"""Which models are loaded: on demand, up to a limit; the least recently used model is unloaded for another one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from time import monotonic

from llama_backend.errors import ModelNotFound
from llama_backend.server.engines.deadline import Deadline
from llama_backend.server.engines.request_table import RequestTable
from llama_backend.server.engines.served_model import ServedModel
from llama_backend.wire.ipc import EngineConfig

_log = logging.getLogger("llama_backend.server")
_LOAD_SECONDS = 3600.0
"""Where models are loaded on demand, a request waits for its model without a limit of its own, until its deadline."""
_WATCH_SECONDS = 1.0

Discover = Callable[[], Mapping[str, EngineConfig]]
"""The models that are installed now, by name."""


class ModelPool:
    """The models of a server; `first` is for requests that name no model, and the only one where `most` is None.

    A model with running requests is never unloaded. A request for another model that needs its place waits until they
    have ended. New requests for the model to be unloaded then wait until it is loaded again, so that it cannot keep
    its place for ever.
    """

    def __init__(
        self,
        first: ServedModel,
        discover: Discover = dict,
        most: int | None = None,
        idle: float | None = None,
        make: Callable[[str, EngineConfig], ServedModel] = ServedModel,
    ) -> None:
        self.first = first
        self._discover = discover
        self._most = most
        self._idle = idle
        self._on_demand = most is not None or idle is not None
        self._make = make
        self._models = {first.name: first}
        self._places = asyncio.Lock()
        self._freed = asyncio.Event()

    @property
    def models(self) -> list[ServedModel]:
        """All models that requests may name, `first` at the head."""
        if self._most is not None:
            for name, config in self._discover().items():
                if name not in self._models:
                    self._models[name] = self._make(name, config)
        return list(self._models.values())

    @property
    def used(self) -> list[ServedModel]:
        """The models that are loaded now or were loaded before."""
        return [model for model in self._models.values() if model.loaded or model.was_ready]

    @property
    def loaded(self) -> list[ServedModel]:
        return [model for model in self._models.values() if model.loaded]

    def find(self, name: str) -> ServedModel:
        """The model of that name; raises ModelNotFound."""
        if name in ("", "default", self.first.name):
            return self.first
        if self._most is None:
            text = f"the model {name!r} is not served here; the only model is {self.first.name!r}"
            raise ModelNotFound(text, param="model")
        models = {model.name: model for model in self.models}
        if name not in models:
            raise ModelNotFound(
                f"no model {name!r} is installed here; GET /v1/models lists those that are", param="model"
            )
        return models[name]

    @asynccontextmanager
    async def use(self, model: ServedModel, max_wait: float, deadline: Deadline) -> AsyncIterator[RequestTable]:
        """Keeps a model loaded during a block, which begins when its engine is ready.

        Raises Unavailable where loading takes longer than `max_wait` seconds and models are not loaded on demand,
        DeadlineExceeded, and ModelUnreadable.
        """
        async with deadline.waiting():
            await self._acquire(model)
        try:
            async with deadline.waiting():
                await model.supervisor.wait_ready(_LOAD_SECONDS if self._on_demand else max_wait)
            yield model.supervisor.requests
        finally:
            self._release(model)

    async def watch_idle(self) -> None:
        """Unloads models that have not been used for the idle time; runs until it is cancelled."""
        while self._idle is not None:
            await asyncio.sleep(min(self._idle, _WATCH_SECONDS))
            async with self._places:
                for model in self.loaded:
                    if not model.users and monotonic() - model.last_used > self._idle:
                        await self._unload(model)

    async def stop(self) -> None:
        """Ends all engines; requests that are still open fail."""
        await asyncio.gather(*[model.unload() for model in self.loaded])

    async def _acquire(self, model: ServedModel) -> None:
        """Loads a model where it is not loaded yet, and counts one more user of it."""
        if not model.loaded or model.unload_wanted:
            async with self._places:
                if not model.loaded:
                    await self._make_place()
                    _log.info("loading the model %s", model.name)
                    model.load()
        model.users += 1

    def _release(self, model: ServedModel) -> None:
        model.users -= 1
        model.last_used = monotonic()
        if not model.users:
            self._freed.set()

    async def _make_place(self) -> None:
        """Unloads the least recently used models until one more may be loaded; waits for their users to end."""
        while len(self.loaded) >= (self._most or 1):
            await self._free(min(self.loaded, key=_unload_order))

    async def _free(self, model: ServedModel) -> None:
        model.unload_wanted = True
        try:
            while model.users:
                self._freed.clear()
                await self._freed.wait()
            await self._unload(model)
        finally:
            model.unload_wanted = False

    async def _unload(self, model: ServedModel) -> None:
        _log.info("unloading the model %s", model.name)
        await asyncio.shield(model.unload())


def _unload_order(model: ServedModel) -> tuple[bool, bool, float]:
    """The order of unloading: models that cannot be loaded, then those without users, least recently used first."""
    return model.state != "failed", model.users > 0, model.last_used
