"""How much of the context the conversation and the draft take, as the backend counts it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from llama_backend.errors import BackendError

if TYPE_CHECKING:
    from llama_backend.client.protocols import TokenCounter
    from llama_backend.wire.api import ChatMessage

DEBOUNCE_SECONDS = 0.25
"""How long the text must stay the same before it is counted."""


@dataclass(frozen=True)
class Reading:
    """Tokens of the prompt, and of the whole context; None where they are not known."""

    count: int | None = None
    context: int | None = None
    is_exact: bool = False
    """Whether `count` was counted for what is on the screen now; else it is an older count, or an estimate."""

    @property
    def fits(self) -> bool:
        """False only where the backend counted too many tokens; one is needed for the answer."""
        return not self.is_exact or self.count is None or self.context is None or self.count < self.context


class ContextMeter:
    """Counts again when changes pause; `on_change` is called with every new reading."""

    def __init__(self, counter: TokenCounter, on_change: Callable[[Reading], None]) -> None:
        self._counter = counter
        self._on_change = on_change
        self._counting: asyncio.Task[None] | None = None
        self._counted: int | None = None
        self._estimated = 0
        self.reading = Reading()

    def set_context(self, context: int | None) -> None:
        """Takes the size of the context from the backend's state."""
        if context is not None:
            self._set(replace(self.reading, context=context))

    def estimate_answer(self, tokens: int) -> None:
        """Adds the estimated `tokens` of the answer that is arriving to the count of its prompt."""
        self._estimated = tokens
        if self._counted is not None:
            self._set(replace(self.reading, count=self._counted + tokens, is_exact=False))

    def invalidate(self) -> None:
        """Marks the reading as outdated; nothing is counted yet."""
        self.cancel()
        self._set(replace(self.reading, is_exact=False))

    def measure(self, messages: list[ChatMessage]) -> None:
        """Counts `messages`, which are the prompt now, unless they change again at once."""
        self.invalidate()
        self._counted, self._estimated = None, 0
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
            found = await self._counter.count(messages)
        except BackendError:
            return
        self._counted = found.count
        self._set(Reading(found.count + self._estimated, found.context, is_exact=not self._estimated))

    def _set(self, reading: Reading) -> None:
        if reading != self.reading:
            self.reading = reading
            self._on_change(reading)
