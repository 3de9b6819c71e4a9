"""One question and its answer, recorded in the history while the answer is being written.

`ask` prints a turn. In the chat a turn belongs to the conversation on the screen, and is streamed to a widget there;
both use this module, which knows neither the terminal nor widgets.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, cast

from msgspec import structs

from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, FinishReason, Role, SamplingParams, Timings, Usage
from llama_chat.errors import HistoryError

if TYPE_CHECKING:
    from llama_chat.history import Conversation, History, StoredMessage

SAVE_SECONDS = 0.5
"""How often the growing answer is written to disk, and so the most that a killed process can lose."""

_NO_SAMPLING = SamplingParams()


class AnswerSource(Protocol):
    """What a turn needs of a backend."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answer in pieces; closing the iterator stops the work. Raises BackendError."""
        ...


class Turn:
    """One question and its answer as far as it has come, recorded in the history.

    The model is sent the branch that ends with `conversation.tip`, even if another process has added messages since the
    conversation was read. Without a conversation a new one is made, and `conversation` is its state after the question
    was added. Nothing is written where `record` is false or there is no history.
    """

    def __init__(
        self,
        history: History | None,
        conversation: Conversation | None,
        *,
        model: str = "",
        system: str = "",
        record: bool = True,
    ) -> None:
        self.conversation = conversation
        self.text = ""
        self.finish_reason: FinishReason | None = None
        self.error: str | None = None
        self.usage: Usage | None = None
        self.timings: Timings | None = None
        self.seed: int | None = None
        self.model = model or (conversation.model if conversation else "")
        self.question: StoredMessage | None = None
        self.answer: StoredMessage | None = None
        self._system = conversation.system if conversation else system
        self._history = history
        self._record = record and history is not None
        self._writing = threading.Lock()
        self._written = ""

    async def stream(
        self, backend: AnswerSource, text: str, sampling: SamplingParams = _NO_SAMPLING
    ) -> AsyncGenerator[Delta, None]:
        """Asks `text` and yields the answer as it comes.

        The question is on disk before it is sent. Closing this iterator or cancelling its task stops the backend, and
        the answer is recorded as far as it came, as `cancelled`. An error of the backend is recorded with what came
        before it, and raised. If the history fails in the middle of an answer, the answer is still read to its end, and
        then HistoryError is raised.
        """
        async with self._recorded():
            messages = await asyncio.to_thread(self._begin, text)
            request = ChatRequest(model=self.model, messages=messages, **structs.asdict(sampling.sampling()))
            async with aclosing(backend.chat(request)) as deltas:
                async for delta in deltas:
                    self._take(delta)
                    yield delta

    def _begin(self, text: str) -> list[ChatMessage]:
        """Writes the question and an empty answer; returns the messages of the request."""
        past = self._past()
        if self._record and self._history:
            with self._writing:
                self._add(self._history, text)
        system = [ChatMessage("system", self._system)] if self._system else []
        return [*system, *to_request(past), ChatMessage("user", text)]

    def _past(self) -> Sequence[StoredMessage]:
        if self._history is None or self.conversation is None or self.conversation.tip is None:
            return []
        return self._history.messages(self.conversation.id, self.conversation.tip)

    def _add(self, history: History, text: str) -> None:
        found = self.conversation or history.create(model=self.model, system=self._system)
        self.question = history.add(found.id, "user", text, parent_id=found.tip)
        self.answer = history.add(found.id, "assistant", "", parent_id=self.question.id, model=self.model)
        self.conversation = replace(history.conversation(found.id), tip=self.answer.id)

    def _take(self, delta: Delta) -> None:
        self.text += delta.text
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.usage = delta.usage or self.usage
        self.timings = delta.timings or self.timings
        self.model = delta.model or self.model
        self.seed = self.seed if delta.seed is None else delta.seed

    @asynccontextmanager
    async def _recorded(self) -> AsyncIterator[None]:
        """Writes the answer at intervals, and once more at its end with how it ended."""
        saver = asyncio.create_task(self._save_regularly())
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.finish_reason = self.finish_reason or "cancelled"
            raise
        except Exception as error:
            self.finish_reason, self.error = "error", str(error) or type(error).__name__
            raise
        finally:
            saver.cancel()
            await asyncio.to_thread(self._write)

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            if self.text != self._written:
                await asyncio.to_thread(self._write_growing)

    def _write_growing(self) -> None:
        """Writes the answer, and leaves a failure to the write at the end, which reports it."""
        try:
            self._write()
        except HistoryError:
            return

    def _write(self) -> None:
        """Writes the present state of the answer; the lock keeps an older state from being written over a newer one."""
        with self._writing:
            if self._history is None or self.answer is None:
                return
            text = self.text
            self._history.update(
                self.answer.id,
                text,
                finish_reason=self.finish_reason,
                error=self.error,
                model=self.model,
                usage=self.usage,
                timings=self.timings,
                seed=self.seed,
            )
            self._written = text


def to_request(past: Sequence[StoredMessage]) -> list[ChatMessage]:
    """The messages of a branch as a request sends them.

    An answer without text is left out, and so is its question: the roles then still alternate, and a question that was
    too long or was taken back is not asked again.
    """
    kept: list[ChatMessage] = []
    for message in past:
        if message.text or message.role == "user":
            kept.append(ChatMessage(cast("Role", message.role), message.text))
        elif kept and kept[-1].role == "user":
            kept.pop()
    return kept
