"""One model that a server offers, loaded or not, with everything that outlives its engines."""

from __future__ import annotations

from time import monotonic

from llama_backend.server.engines.counter_sums import CounterSums
from llama_backend.server.engines.grammars import Grammars
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.server.request_metrics import RequestMetrics
from llama_backend.wire.api import ModelInfo, ModelMeta, ModelState
from llama_backend.wire.ipc import EngineConfig

_UNKNOWN_SLOTS = 4


class ServedModel:
    """A model and its name. `supervisor` runs its engine while it is loaded."""

    def __init__(self, name: str, config: EngineConfig, process: EngineProcess | None = None) -> None:
        """`process` is an engine that was started already."""
        self.name = name
        self.config = config
        self.metrics = RequestMetrics()
        self.grammars = Grammars(config.path)
        self.counters = CounterSums()
        self.supervisor = Supervisor(config, process, self.counters)
        self.loaded = False
        """Whether an engine runs or is being started."""
        self.users = 0
        """Requests that need it now."""
        self.unload_wanted = False
        """Whether it is to be unloaded as soon as its last user has ended."""
        self.last_used = monotonic()
        self._was_ready = False
        self._restarts = 0

    @property
    def state(self) -> ModelState:
        return self.supervisor.status.state if self.loaded else "unloaded"

    @property
    def was_ready(self) -> bool:
        """Whether it has been loaded at any time."""
        return self._was_ready or self.supervisor.status.was_ready

    @property
    def restarts(self) -> int:
        """Engines that died and were followed by another."""
        return self._restarts + self.supervisor.restarts.total

    @property
    def slots(self) -> int:
        """Answers that can be computed at the same time; an estimate while the model is not loaded."""
        ready = self.supervisor.status.ready
        return ready.slots if ready else self.config.slots or _UNKNOWN_SLOTS

    def load(self) -> None:
        """Starts the engine; `supervisor.wait_ready` returns when it is ready."""
        self.loaded = True
        self.supervisor.start()

    async def unload(self) -> None:
        """Ends the engine, which frees its memory; requests that are still open fail."""
        old = self.supervisor
        self._was_ready, self._restarts = self.was_ready, self.restarts
        self.supervisor = Supervisor(self.config, None, self.counters)
        self.loaded = False
        await old.stop()
        self.counters.close()

    def info(self) -> ModelInfo:
        """The model as `GET /v1/models` lists it."""
        ready = self.supervisor.status.ready
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
