"""What all routes share: the models, the gate and the admission of one server."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic

from llama_backend.errors import Unavailable
from llama_backend.server.access.admission import Admission
from llama_backend.server.access.auth import Gate
from llama_backend.server.access.body_budget import Bodies
from llama_backend.server.access.rate_limit import RateLimits
from llama_backend.server.engines.link import resident_bytes
from llama_backend.server.engines.pool import ModelPool
from llama_backend.server.streaming.streams import Streams
from llama_backend.server_config import ServerConfig
from llama_backend.wire.status import BackendStatus, State


@dataclass
class Server:
    """The state of a running server."""

    config: ServerConfig
    models: ModelPool
    gate: Gate
    admission: Admission
    streams: Streams
    rates: RateLimits = field(default_factory=RateLimits)
    bodies: Bodies = field(default_factory=Bodies)
    errors: Counter[str] = field(default_factory=Counter)
    """Answers that were errors, by code."""
    draining: bool = False
    started: float = field(default_factory=monotonic)

    @cached_property
    def version(self) -> str:
        """Read when somebody asks: what reads it is slow to import, and a start should not wait for it."""
        from importlib.metadata import version

        return version("llama-chat")

    @property
    def state(self) -> State:
        """Whether requests can be taken. One whose model is not loaded can, once the first model was."""
        first = self.models.first
        if self.draining:
            return "draining"
        is_ready = any(model.state == "ready" for model in self.models.used)
        return "ready" if is_ready or first.state == "unloaded" else first.state

    @property
    def slots(self) -> int:
        """Answers that can be computed at the same time."""
        return sum(model.slots for model in self.models.loaded or [self.models.first])

    def check_open(self) -> None:
        if self.draining:
            raise Unavailable("the server is shutting down", retry_after=5)

    def status(self) -> BackendStatus:
        first, loaded = self.models.first, self.models.loaded
        supervisor, ready = first.supervisor, first.supervisor.ready
        stats = first.totals.stats
        pids = [os.getpid(), *[model.supervisor.pid for model in loaded if model.supervisor.pid]]
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
            running=sum(model.supervisor.running for model in loaded),
            waiting=sum(model.supervisor.waiting for model in loaded),
            models=[model.name for model in self.models.models],
            loaded=[model.name for model in loaded],
            active=self.admission.inside,
            restarts=sum(model.restarts for model in self.models.used),
            rss=sum(map(resident_bytes, pids)),
            step_times=stats.times if stats else None,
            tuning=supervisor.tuning,
            kv_store=supervisor.kv_store,
        )


def new_seed() -> int:
    """A seed for a request that names none, so that its answer can be made again."""
    return secrets.randbits(31)
