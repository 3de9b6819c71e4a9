"""What all routes share: the supervisor, the gate and the admission of one server."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from time import monotonic

from llama_backend.api import BackendStatus, ModelInfo, ModelMeta, State
from llama_backend.config import ServerConfig
from llama_backend.errors import ModelNotFound, Unavailable
from llama_backend.server.admission import Admission
from llama_backend.server.auth import Gate
from llama_backend.server.child import resident_bytes
from llama_backend.server.grammars import Grammars
from llama_backend.server.meter import Meter
from llama_backend.server.rate_limit import RateLimits
from llama_backend.server.streams import Streams
from llama_backend.server.supervisor import Supervisor

_UNKNOWN_SLOTS = 4


@dataclass
class Server:
    """The state of a running server."""

    config: ServerConfig
    supervisor: Supervisor
    gate: Gate
    admission: Admission
    grammars: Grammars
    streams: Streams
    rates: RateLimits = field(default_factory=RateLimits)
    meter: Meter = field(default_factory=Meter)
    errors: Counter[str] = field(default_factory=Counter)
    """Answers that were errors, by code."""
    version: str = ""
    draining: bool = False
    started: float = field(default_factory=monotonic)

    @property
    def state(self) -> State:
        return "draining" if self.draining else self.supervisor.state

    @property
    def slots(self) -> int:
        ready = self.supervisor.ready
        return ready.slots if ready else self.config.engine.slots or _UNKNOWN_SLOTS

    def check_model(self, name: str) -> None:
        """A request may name this model, or none."""
        if name not in ("", "default", self.config.model):
            raise ModelNotFound(f"the model {name!r} is not served here, but {self.config.model!r}", param="model")

    def check_open(self) -> None:
        if self.draining:
            raise Unavailable("the server is shutting down", retry_after=5)

    def model_info(self) -> ModelInfo:
        ready = self.supervisor.ready
        meta = ModelMeta(path=self.config.engine.path)
        if ready is not None:
            meta = ModelMeta(
                context=ready.context,
                context_trained=ready.context_trained,
                parameters=ready.parameters,
                size=ready.size,
                path=self.config.engine.path,
            )
        return ModelInfo(id=self.config.model, meta=meta)

    def status(self) -> BackendStatus:
        supervisor, ready = self.supervisor, self.supervisor.ready
        stats = supervisor.totals.stats
        pids = [os.getpid()] + ([supervisor.pid] if supervisor.pid else [])
        return BackendStatus(
            state=self.state,
            model=self.config.model,
            progress=supervisor.progress,
            reason=supervisor.reason,
            version=self.version,
            pid=os.getpid(),
            engine_pid=supervisor.pid,
            uptime=round(monotonic() - self.started, 3),
            log=self.config.log,
            path=self.config.engine.path,
            context=ready.context if ready else None,
            slots=ready.slots if ready else None,
            threads=supervisor.tuning.threads if supervisor.tuning else ready.threads if ready else None,
            kv_unified=ready.kv_unified if ready else None,
            gpu_layers=ready.gpu_layers if ready else None,
            running=supervisor.running,
            waiting=supervisor.waiting,
            active=self.admission.inside,
            restarts=supervisor.restarts,
            rss=sum(map(resident_bytes, pids)),
            step_times=stats.times if stats else None,
            tuning=supervisor.tuning,
            kv_store=supervisor.kv_store,
        )


def new_seed() -> int:
    """A seed for a request that names none, so that its answer can be made again."""
    return secrets.randbits(31)
