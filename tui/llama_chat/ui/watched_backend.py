"""A backend that is watched: its state is shown, and a request that is sent early waits until the model is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

from llama_backend.errors import BackendError, PodPending, Unavailable, Unreachable
from llama_chat.ui.backend_state import CONNECTING_PHASES, BackendState, Phase, ask_state

if TYPE_CHECKING:
    from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, TokenCount
    from llama_chat.backends.attached import AttachedBackend
    from llama_chat.backends.tunnel import Stage

_FIRST_POLL_SECONDS = 0.1
_SLOWEST_POLL_SECONDS = 1.0
SILENCE_SECONDS = 1.0
"""After so long without a piece of the answer the backend is asked for its state, again and again."""


class WatchedBackend:
    """A backend whose state is followed until it is ready, and again after each error.

    `on_change` is called with every new state. A backend elsewhere that cannot be reached is tried again and again;
    a local one that cannot be reached has failed. `backend` connects when it is first used, and again after `aclose`.
    """

    def __init__(self, backend: AttachedBackend, on_change: Callable[[BackendState], None]) -> None:
        self._backend = backend
        self._was_ready = False
        backend.report_stages(self._take_stage)
        self._on_change = on_change
        self._watching: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        """The error that ended the last watch."""
        self.state = BackendState()

    @property
    def is_ready(self) -> bool:
        return self.state.phase == "ready"

    def wake(self) -> None:
        """Connects and follows the state, unless that is under way."""
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    def keep_alive(self) -> None:
        """Asks a backend elsewhere for its state, so that nothing on the way closes a silent connection."""
        if not self._backend.is_local:
            self.wake()

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As ChatBackend.chat, once the model is loaded."""
        await self._wait_until_ready()
        silence = asyncio.create_task(self._watch_silence())
        try:
            async with aclosing(self._backend.chat(request)) as deltas:
                async for delta in deltas:
                    silence.cancel()
                    yield delta
        except BackendError as error:
            await self._take_error(error)
            raise
        finally:
            silence.cancel()
            self._set(replace(self.state, queued=0))

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        try:
            return await self._backend.count(messages)
        except BackendError as error:
            await self._take_error(error)
            raise

    async def clear_kv_states(self) -> None:
        """As AttachedBackend.clear_kv_states."""
        await self._backend.clear_kv_states()

    async def aclose(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._backend.aclose()

    async def _wait_until_ready(self) -> None:
        """Waits until the model is loaded; raises the error that prevents it."""
        if self.is_ready:
            return
        self.wake()
        if self._watching is not None:
            await asyncio.wait([self._watching])
        if self._failure is not None:
            raise self._failure

    async def _watch_silence(self) -> None:
        """Follows what an answer waits for as long as nothing of it arrives.

        Later requests queue up behind this one, so its position never grows.
        """
        position = None
        while True:
            await asyncio.sleep(SILENCE_SECONDS)
            try:
                found = await ask_state(self._backend)
            except BackendError:
                self.wake()
                return
            position = found.queued if position is None else min(position, found.queued)
            self._set(replace(found, queued=position))
            if not self.is_ready:
                self.wake()

    async def _watch(self) -> None:
        """Follows the state until the backend is ready or has failed."""
        self._failure = None
        try:
            await self._poll()
        except Exception as error:  # noqa: BLE001 - kept for a request that waits, if there is one
            self._failure = error
            self._set(replace(self.state, phase="failed", reason=str(error)))
            await self._backend.aclose()

    async def _poll(self) -> None:
        pause = _FIRST_POLL_SECONDS
        while True:
            self._set(replace(await self._ask_patiently(), queued=0))
            if self.is_ready:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _SLOWEST_POLL_SECONDS)

    async def _ask_patiently(self) -> BackendState:
        """The state now; raises BackendError where waiting does not help."""
        try:
            return await ask_state(self._backend)
        except Unreachable as error:
            if self._backend.is_local:
                raise
            phase: Phase = "waiting for a pod" if isinstance(error, PodPending) else self._connecting
            return replace(self.state, phase=phase, reason=error.message)

    async def _take_error(self, error: BackendError) -> None:
        """Follows the state again where an error of a request shows that the backend has gone or is restarting."""
        if isinstance(error, Unreachable) and self._backend.is_local:
            await self._backend.aclose()
        if isinstance(error, Unreachable | Unavailable):
            is_away = isinstance(error, Unreachable) and not self._backend.is_local
            self._set(replace(self.state, phase=self._connecting if is_away else "restarting", reason=error.message))
            self.wake()

    @property
    def _connecting(self) -> Phase:
        return "reconnecting" if self._was_ready else "connecting"

    def _take_stage(self, stage: Stage, reason: str) -> None:
        """Takes what the connection reports; another attempt without a reason does not replace the known reason."""
        if stage == "reached":
            self._set(replace(self.state, phase="ready", reason=""))
        elif reason or stage == "waiting for a pod" or self.state.phase not in CONNECTING_PHASES:
            self._set(replace(self.state, phase=stage, reason=reason))

    def _set(self, state: BackendState) -> None:
        self._was_ready = self._was_ready or state.phase == "ready"
        if state != self.state:
            self.state = state
            self._on_change(state)
