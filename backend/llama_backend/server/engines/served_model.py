"""One model that a server offers: loaded or not, with what outlives its engines."""

from __future__ import annotations

from time import monotonic

from llama_backend.server.engines.counter_sums import Totals
from llama_backend.server.engines.grammars import Grammars
from llama_backend.server.engines.link import EngineChild
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.server.request_metrics import Meter
from llama_backend.wire.api import ModelInfo, ModelMeta, ModelState
from llama_backend.wire.ipc import EngineConfig

_UNKNOWN_SLOTS = 4


class HostedModel:
    """A model under its name. `supervisor` runs its engine while it is loaded."""

    def __init__(self, name: str, config: EngineConfig, child: EngineChild | None = None) -> None:
        self.name = name
        self.config = config
        self.meter = Meter()
        self.grammars = Grammars(config.path)
        self.totals = Totals()
        self.supervisor = Supervisor(config, child, self.totals)
        self.loaded = False
        """Whether there is an engine, or one on its way."""
        self.users = 0
        """Requests that need it now."""
        self.leaving = False
        """Somebody waits for its last user to end, to unload it."""
        self.last_used = monotonic()
        self._was_ready = False
        self._restarts = 0

    @property
    def state(self) -> ModelState:
        return self.supervisor.state if self.loaded else "unloaded"

    @property
    def was_ready(self) -> bool:
        """Whether it has been loaded at any time."""
        return self._was_ready or self.supervisor.was_ready

    @property
    def restarts(self) -> int:
        return self._restarts + self.supervisor.restarts

    @property
    def slots(self) -> int:
        ready = self.supervisor.ready
        return ready.slots if ready else self.config.slots or _UNKNOWN_SLOTS

    def load(self) -> None:
        """Starts the engine; the supervisor says when it is ready."""
        self.loaded = True
        self.supervisor.start()

    async def unload(self) -> None:
        """Ends the engine, which frees its memory; requests that are still there fail."""
        old = self.supervisor
        self._was_ready, self._restarts = self.was_ready, self.restarts
        self.supervisor = Supervisor(self.config, None, self.totals)
        self.loaded = False
        await old.stop()
        self.totals.close()

    def info(self) -> ModelInfo:
        ready = self.supervisor.ready
        meta = ModelMeta(path=self.config.path)
        if ready is not None:
            meta = ModelMeta(
                context=ready.context,
                context_trained=ready.context_trained,
                parameters=ready.parameters,
                size=ready.size,
                path=self.config.path,
            )
        return ModelInfo(id=self.name, meta=meta, state=self.state)
