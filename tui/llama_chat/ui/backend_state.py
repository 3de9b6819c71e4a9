"""What is known of the backend, and how the backend is asked for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal, Protocol

from llama_backend.errors import ModelNotFound, ModelUnreadable, NotFound, Unavailable

if TYPE_CHECKING:
    from llama_backend.wire.api import ModelInfo
    from llama_backend.wire.status import BackendStatus

Phase = Literal[
    "starting", "connecting", "waiting for a pod", "loading", "ready", "restarting", "reconnecting", "failed"
]
CONNECTING_PHASES = ("connecting", "waiting for a pod", "reconnecting")
"""Phases in which a backend elsewhere is not reached."""


@dataclass(frozen=True)
class BackendState:
    """What is known of the backend."""

    phase: Phase = "starting"
    progress: float = 0.0
    """Part of the model that is loaded, 0 to 1."""
    reason: str = ""
    """Why it is not ready."""
    model: str = ""
    context: int | None = None
    """Tokens that a conversation can hold, where the backend says."""
    queued: int = 0
    """The position in the queue of the answer that is waited for; 0 where none is queued."""

    @property
    def waits_for(self) -> str:
        """What an answer waits for while nothing of it has arrived."""
        match self.phase:
            case "ready" if self.queued:
                return f"queued at position {self.queued}"
            case "ready":
                return "reading the prompt …"
            case "loading":
                return f"waiting for the model: loading {self.progress:.0%}"
            case "connecting" | "reconnecting" | "waiting for a pod":
                return f"{self.phase} …"
            case _:
                return f"waiting for the model: {self.phase}"


class StateSource(Protocol):
    """A backend that can be asked for its status, or at least for its models."""

    async def models(self) -> list[ModelInfo]: ...

    async def status(self) -> BackendStatus: ...


async def ask_state(backend: StateSource) -> BackendState:
    """The state of `backend` now; `queued` is how many requests wait there.

    Raises ModelUnreadable and Unavailable where waiting does not help, and what `backend` raises.
    """
    try:
        status = await backend.status()
    except (NotFound, ModelNotFound):
        return await _ask_models_only(backend)
    if status.state == "failed":
        raise ModelUnreadable(status.reason or "the model could not be loaded")
    if status.state == "draining":
        raise Unavailable("the backend is shutting down")
    return BackendState(
        status.state, status.progress, status.reason or "", status.model, status.context, queued=status.waiting
    )


async def _ask_models_only(backend: StateSource) -> BackendState:
    """The state of another kind of server, which has no status; llama-server names its model by the file's path."""
    models = await backend.models()
    if not models:
        return BackendState("ready")
    name, meta = models[0].id, models[0].meta
    shown_name = PurePosixPath(name).name if name.startswith("/") else name
    return BackendState("ready", model=shown_name, context=meta.context if meta else None)
