"""A backend whose state is known: what the status line shows, and what a message that was sent early waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from llama_backend.errors import (
    BackendError,
    ModelNotFound,
    ModelUnreadable,
    NotFound,
    PodPending,
    Unavailable,
    Unreachable,
)

if TYPE_CHECKING:
    from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
    from llama_backend.wire.status import BackendStatus
    from llama_chat.backends.attached import RoadBackend
    from llama_chat.backends.tunnel import Stage

Phase = Literal[
    "starting", "connecting", "waiting for a pod", "loading", "ready", "restarting", "reconnecting", "failed"
]

_ON_THE_ROAD = ("connecting", "waiting for a pod", "reconnecting")
_FIRST_POLL_SECONDS = 0.1
_SLOWEST_POLL_SECONDS = 1.0
_PATIENCE_SECONDS = 1.0
"""How long an answer may keep silent until the state is looked at again, and how often that is done then."""


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
    """The place in the queue of the answer that is waited for; 0 is none."""


class WatchedBackend:
    """A Backend in front of another one, which it watches until that is ready.

    `backend` connects when it is first used, and anew after `aclose`. `on_change` hears of every new state. One that is
    elsewhere and cannot be reached is tried until it can; a local one has failed then.
    """

    def __init__(self, backend: RoadBackend, on_change: Callable[[BackendState], None]) -> None:
        self._backend = backend
        self._was_ready = False
        backend.listen(self._take_stage)
        self._on_change = on_change
        self._watching: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        """What ended the last watch, where that did not end well."""
        self.state = BackendState()

    @property
    def is_ready(self) -> bool:
        return self.state.phase == "ready"

    @property
    def is_local(self) -> bool:
        return self._backend.is_local

    def wake(self) -> None:
        """Begins to connect and watch, where that is not under way already."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As Backend.chat, once the model is loaded."""
        await self._ready()
        silence = asyncio.create_task(self._watch_silence())
        try:
            async with aclosing(self._backend.chat(request)) as deltas:
                async for delta in deltas:
                    silence.cancel()
                    yield delta
        except BackendError as error:
            await self._note(error)
            raise
        finally:
            silence.cancel()
            self._set(replace(self.state, queued=0))

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        try:
            return await self._backend.count(messages)
        except BackendError as error:
            await self._note(error)
            raise

    async def models(self) -> list[ModelInfo]:
        return await self._backend.models()

    async def clear_kv_states(self) -> None:
        """As RoadBackend.clear_kv_states."""
        await self._backend.clear_kv_states()

    async def status(self) -> BackendStatus:
        return await self._backend.status()

    async def aclose(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._backend.aclose()

    async def _ready(self) -> None:
        """Waits until the model is loaded; raises what hinders it."""
        if self.is_ready:
            return
        self.wake()
        if self._watching is not None:
            await asyncio.wait([self._watching])
        if self._failure is not None:
            raise self._failure

    async def _watch_silence(self) -> None:
        """Looks what an answer waits for, from time to time as long as nothing comes.

        Who asks last stands last in the queue, and who comes later stands behind.
        """
        place = None
        while True:
            await asyncio.sleep(_PATIENCE_SECONDS)
            try:
                found = await self._look()
            except BackendError:
                self.wake()
                return
            place = found.queued if place is None else min(place, found.queued)
            self._set(replace(found, queued=place))
            if not self.is_ready:
                self.wake()

    async def _watch(self) -> None:
        """Looks at the state until it is ready or will not be."""
        self._failure = None
        try:
            await self._poll()
        except Exception as error:  # noqa: BLE001 - kept for whoever waits; nobody may be waiting
            self._failure = error
            self._set(replace(self.state, phase="failed", reason=str(error)))
            await self._backend.aclose()

    async def _poll(self) -> None:
        pause = _FIRST_POLL_SECONDS
        while True:
            self._set(replace(await self._look_patiently(), queued=0))
            if self.is_ready:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _SLOWEST_POLL_SECONDS)

    async def _look_patiently(self) -> BackendState:
        """The state now; raises BackendError where waiting does not help."""
        try:
            return await self._look()
        except Unreachable as error:
            if self._backend.is_local:
                raise
            if isinstance(error, PodPending):
                return replace(self.state, phase="waiting for a pod", reason=error.message)
            return replace(self.state, phase=self._road_phase, reason=error.message)

    async def _look(self) -> BackendState:
        """The state now; raises BackendError where the model cannot be had."""
        try:
            status = await self._backend.status()
        except (NotFound, ModelNotFound):
            return await self._look_from_afar()
        if status.state == "failed":
            raise ModelUnreadable(status.reason or "the model could not be loaded")
        if status.state == "draining":
            raise Unavailable("the backend is shutting down")
        about = status.reason or "", status.model, status.context
        return BackendState(status.state, status.progress, *about, queued=status.waiting)

    async def _look_from_afar(self) -> BackendState:
        """The state of a server of another make, which has models and no status; llama-server names the file's path."""
        models = await self._backend.models()
        meta = models[0].meta if models else None
        name = models[0].id if models else ""
        if name.startswith("/"):
            name = PurePosixPath(name).name
        return BackendState("ready", model=name, context=meta.context if meta else None)

    async def _note(self, error: BackendError) -> None:
        """Draws what follows from an error of a request: a backend that went away is looked for again."""
        if isinstance(error, Unreachable) and self._backend.is_local:
            await self._backend.aclose()
        if isinstance(error, Unreachable | Unavailable):
            away = isinstance(error, Unreachable) and not self._backend.is_local
            self._set(replace(self.state, phase=self._road_phase if away else "restarting", reason=error.message))
            self.wake()

    @property
    def _road_phase(self) -> Phase:
        return "reconnecting" if self._was_ready else "connecting"

    def _take_stage(self, stage: Stage, reason: str) -> None:
        """Shows what the road tells; another try without news changes nothing."""
        if stage == "reached":
            self._set(replace(self.state, phase="ready", reason=""))
        elif reason or stage == "waiting for a pod" or self.state.phase not in _ON_THE_ROAD:
            self._set(replace(self.state, phase=stage, reason=reason))

    def _set(self, state: BackendState) -> None:
        self._was_ready = self._was_ready or state.phase == "ready"
        if state != self.state:
            self.state = state
            self._on_change(state)
