"""How much of the context the conversation and the draft take, as the backend counts it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llama_backend.errors import BackendError

if TYPE_CHECKING:
    from llama_backend.client.protocols import Backend
    from llama_backend.wire.api import ChatMessage

DEBOUNCE_SECONDS = 0.25


@dataclass(frozen=True)
class Reading:
    """Tokens of the prompt, and of the context; None is not known."""

    count: int | None = None
    context: int | None = None
    is_exact: bool = False
    """Whether this is the count of what is on the screen now; else it is an older one, or that with a guess added."""

    @property
    def fits(self) -> bool:
        """False only where the backend counted too many; one token is for the answer."""
        return not self.is_exact or self.count is None or self.context is None or self.count < self.context


class ContextMeter:
    """Counts anew after changes, when they pause. `on_change` hears of every new reading."""

    def __init__(self, backend: Backend, on_change: Callable[[Reading], None]) -> None:
        self._backend = backend
        self._on_change = on_change
        self._counting: asyncio.Task[None] | None = None
        self._counted: int | None = None
        self._grown = 0
        self.reading = Reading()

    def set_context(self, context: int | None) -> None:
        """Takes the size of the context from elsewhere."""
        if context is not None:
            self._set(replace(self.reading, context=context))

    def grow(self, tokens: int) -> None:
        """The answer to the prompt that was counted last has so many tokens by now, more or less."""
        self._grown = tokens
        if self._counted is not None:
            self._set(replace(self.reading, count=self._counted + tokens, is_exact=False))

    def invalidate(self) -> None:
        """The prompt changes and will not be counted yet."""
        self.cancel()
        self._set(replace(self.reading, is_exact=False))

    def measure(self, messages: list[ChatMessage]) -> None:
        """The prompt is now `messages`; counts them soon, unless they change again."""
        self.invalidate()
        self._counted, self._grown = None, 0
        if messages:
            self._counting = asyncio.create_task(self._count(messages))
        else:
            self._counted = 0
            self._set(replace(self.reading, count=0, is_exact=True))

    def cancel(self) -> None:
        if self._counting is not None:
            self._counting.cancel()
            self._counting = None

    async def _count(self, messages: list[ChatMessage]) -> None:
        await asyncio.sleep(DEBOUNCE_SECONDS)
        try:
            found = await self._backend.count(messages)
        except BackendError:
            return
        self._counted = found.count
        self._set(Reading(found.count + self._grown, found.context, is_exact=not self._grown))

    def _set(self, reading: Reading) -> None:
        if reading != self.reading:
            self.reading = reading
            self._on_change(reading)
