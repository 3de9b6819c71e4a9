"""A turn whose answer is being written to the screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from llama_backend.errors import PromptTooLong
from llama_chat.errors import HistoryError
from llama_chat.ui.streaming.stream_pump import StreamPump
from llama_chat.ui.streaming.token_rate import TokenRate

if TYPE_CHECKING:
    from llama_backend.client.protocols import ChatBackend
    from llama_backend.wire.api import SamplingParams
    from llama_chat.turn import Turn


class AnswerSink(Protocol):
    """Where an answer is shown."""

    def append(self, text: str) -> None:
        """Adds text that has arrived."""
        ...

    def wait(self, reason: str) -> None:
        """Shows what the answer waits for; an empty reason removes that."""
        ...

    def finish(self, finish_reason: str | None, error: str | None = None) -> None:
        """Shows how the answer ended."""
        ...


class StreamingTurn:
    """Streams the answer of one `Turn` into a sink, and shows there how it ended.

    `on_progress` is called whenever something was shown, `on_end` once, when everything is shown and kept.
    """

    def __init__(
        self,
        question: str,
        turn: Turn,
        sink: AnswerSink,
        on_progress: Callable[[StreamingTurn], None],
        on_end: Callable[[StreamingTurn], None],
    ) -> None:
        self.question = question
        self.turn = turn
        self.rate = TokenRate()
        self.error: Exception | None = None
        """What went wrong, known after the end."""
        self._has_begun = False
        self._has_ended = False
        self._sink = sink
        self._on_progress = on_progress
        self._on_end = on_end
        self._pump = StreamPump(self._write)
        self._task: asyncio.Task[None] | None = None

    @property
    def refusal(self) -> str | None:
        """Why the question was not asked: it is too long, or the history cannot be written."""
        if isinstance(self.error, PromptTooLong):
            return self.error.message
        is_unkept = isinstance(self.error, HistoryError) and self.turn.answer is None
        return str(self.error) if is_unkept else None

    def start(self, backend: ChatBackend, sampling: SamplingParams) -> None:
        """Sends the question."""
        self._task = asyncio.create_task(self._run(backend, sampling))

    async def stop(self) -> None:
        """Stops the answer, and returns when what has arrived of it is kept."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._end()

    def wait(self, reason: str) -> None:
        """Shows what the answer waits for, as long as nothing of it has arrived."""
        if not self._has_begun:
            self._sink.wait(reason)

    async def _run(self, backend: ChatBackend, sampling: SamplingParams) -> None:
        try:
            async with aclosing(self.turn.stream(backend, self.question, sampling)) as deltas:
                async for delta in deltas:
                    self.rate.take(delta, time.monotonic())
                    self._pump.feed(delta.text)
        except Exception as error:  # noqa: BLE001 - a failed answer is shown; it must not end the chat
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
        """Shows the end, once. `stop` calls it too: a task that is cancelled before its first step never runs."""
        if self._has_ended:
            return
        self._has_ended = True
        self._pump.flush()
        reason = str(self.error) or type(self.error).__name__
        self._sink.finish(self.turn.finish_reason or "cancelled", reason if self.error else None)
        self._on_progress(self)
        self._on_end(self)
