"""One turn on its way from the backend to the screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from llama_chat.ui.streaming.stream_pump import StreamPump
from llama_chat.ui.streaming.token_rate import TokenRate

if TYPE_CHECKING:
    from llama_backend.client.protocols import Backend
    from llama_backend.wire.api import SamplingParams
    from llama_chat.turn import Turn


class AnswerSink(Protocol):
    """Where an answer is shown."""

    def append(self, text: str) -> None:
        """Adds what has come."""
        ...

    def wait(self, reason: str) -> None:
        """Says what the answer waits for; an empty reason is none."""
        ...

    def finish(self, finish_reason: str | None, error: str | None = None) -> None:
        """Says how the answer ended."""
        ...


class Exchange:
    """Streams one turn into a sink, and says there how it ended, whichever way it did.

    `on_progress` is called whenever something is shown, `on_end` once, when all is shown and kept.
    """

    def __init__(
        self,
        question: str,
        turn: Turn,
        sink: AnswerSink,
        on_progress: Callable[[Exchange], None],
        on_end: Callable[[Exchange], None],
    ) -> None:
        self.question = question
        self.turn = turn
        self.rate = TokenRate()
        self.error: Exception | None = None
        """What went wrong, after the end."""
        self._has_begun = False
        self._has_ended = False
        self._sink = sink
        self._on_progress = on_progress
        self._on_end = on_end
        self._pump = StreamPump(self._write)
        self._task: asyncio.Task[None] | None = None

    def start(self, backend: Backend, sampling: SamplingParams) -> None:
        """Sends the question."""
        self._task = asyncio.create_task(self._run(backend, sampling))

    async def stop(self) -> None:
        """Ends the answer as far as it has come, and returns when that is kept."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._end()

    def wait(self, reason: str) -> None:
        """Says what the answer waits for, as long as nothing has come."""
        if not self._has_begun:
            self._sink.wait(reason)

    async def _run(self, backend: Backend, sampling: SamplingParams) -> None:
        try:
            async with aclosing(self.turn.stream(backend, self.question, sampling)) as deltas:
                async for delta in deltas:
                    self.rate.take(delta, time.monotonic())
                    self._pump.feed(delta.text)
        except Exception as error:  # noqa: BLE001 - an answer that fails is shown; it must not take the draft along
            self.error = error
        finally:
            self._end()

    def _write(self, text: str) -> None:
        if not self._has_begun:
            self._sink.wait("")
            self._has_begun = True
        self._sink.append(text)
        self._on_progress(self)

    def _end(self) -> None:
        """Shows the end, once; a task that was cancelled before its first step has not done so itself."""
        if self._has_ended:
            return
        self._has_ended = True
        self._pump.flush()
        reason = str(self.error) or type(self.error).__name__
        self._sink.finish(self.turn.finish_reason or "cancelled", reason if self.error else None)
        self._on_progress(self)
        self._on_end(self)
