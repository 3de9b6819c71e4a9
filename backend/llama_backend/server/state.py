"""The state of one running server, which all routes share."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic

from llama_backend.errors import Unavailable
from llama_backend.server.access.admission import Admission
from llama_backend.server.access.auth import Authenticator
from llama_backend.server.access.body_budget import BodyBudget
from llama_backend.server.access.rate_limit import RateLimits
from llama_backend.server.engines.pool import ModelPool
from llama_backend.server.engines.watched_process import resident_bytes
from llama_backend.server.streaming.streams import Streams
from llama_backend.server_config import ServerConfig
from llama_backend.wire.status import BackendStatus, State


@dataclass
class ServerState:
    """What outlives a request: the models, the limits of clients, the open streams, and counts of errors."""

    config: ServerConfig
    models: ModelPool
    authenticator: Authenticator
    admission: Admission
    streams: Streams
    rates: RateLimits = field(default_factory=RateLimits)
    body_budget: BodyBudget = field(default_factory=BodyBudget)
    errors: Counter[str] = field(default_factory=Counter)
    """How often each error was answered, by its code."""
    draining: bool = False
    started: float = field(default_factory=monotonic)

    @cached_property
    def version(self) -> str:
        """The installed version; read on demand, since importing `importlib.metadata` would slow down the start."""
        from importlib.metadata import version

        return version("llama-chat")

    @property
    def state(self) -> State:
        """Whether requests can be taken; once the first model has been loaded, other models are loaded on demand."""
        if self.draining:
            return "draining"
        first = self.models.first
        is_ready = any(model.state == "ready" for model in self.models.used)
        return "ready" if is_ready or first.state == "unloaded" else first.state

    @property
    def slots(self) -> int:
        """Answers that can be computed at the same time."""
        return sum(model.slots for model in self.models.loaded or [self.models.first])

    def check_open(self) -> None:
        """Raises Unavailable while the server shuts down."""
        if self.draining:
            raise Unavailable("the server is shutting down", retry_after=5)

    def status(self) -> BackendStatus:
        """The answer of `GET /v1/status`; fields about a single engine are those of the first model's."""
        first = self.models.first.supervisor.status
        ready, stats = first.ready, first.counters.stats
        engines = [model.supervisor.status for model in self.models.loaded]
        pids = [os.getpid(), *[engine.process.pid for engine in engines if engine.process]]
        return BackendStatus(
            state=self.state,
            model=self.config.model,
            progress=first.progress,
            reason=first.reason,
            version=self.version,
            pid=os.getpid(),
            engine_pid=first.process.pid if first.process else None,
            uptime=round(monotonic() - self.started, 3),
            log=self.config.log,
            path=self.config.engine.path,
            context=ready.context if ready else None,
            slots=ready.slots if ready else None,
            threads=first.tuning.threads if first.tuning else ready.threads if ready else None,
            kv_unified=ready.kv_unified if ready else None,
            gpu_layers=ready.gpu_layers if ready else None,
            running=sum(engine.running for engine in engines),
            waiting=sum(engine.waiting for engine in engines),
            models=[model.name for model in self.models.models],
            loaded=[model.name for model in self.models.loaded],
            active=self.admission.inside,
            restarts=sum(model.restarts for model in self.models.used),
            rss=sum(map(resident_bytes, pids)),
            step_times=stats.times if stats else None,
            tuning=first.tuning,
            kv_store=first.kv_store,
        )


def new_seed() -> int:
    """A seed for a request without one; the response contains it, so that the same answer can be computed again."""
    return secrets.randbits(31)
