"""A backend with scripted answers, at a scripted speed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from llama_backend.errors import BackendError, PromptTooLong
from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
from llama_backend.wire.status import BackendStatus
from llama_chat.backends.tunnel import StageListener

CONTEXT = 2048
READY = BackendStatus(state="ready", model="SmolLM2-135M-Instruct", context=CONTEXT)


@dataclass
class ScriptedBackend:
    """A Backend whose answers and states are set by the test; it counts a word as a token."""

    answers: list[Sequence[str | BackendError]] = field(default_factory=list)
    """One script an answer: pieces of text, and at its end perhaps an error. After the last, it echoes."""
    states: list[BackendStatus | BackendError] = field(default_factory=lambda: [READY])
    """What `status` says, one after the other; the last one stays."""
    gate: asyncio.Event | None = None
    """Where set, an answer waits for it before its last piece."""
    finish_reason: str = "stop"
    context: int = CONTEXT
    seconds: float = 0.0
    """Between two pieces."""
    count_error: BackendError | None = None
    requests: list[ChatRequest] = field(default_factory=list)
    counted: list[list[ChatMessage]] = field(default_factory=list)
    stopped: int = 0
    """Answers that were closed before their end."""
    closed: int = 0
    cleared: int = 0
    """How often it was asked to clear KV states."""
    clear_error: BackendError | None = None
    delivered: int = 0
    """Pieces of text that were read."""
    model: str = "scripted"
    is_local: bool = True
    listener: StageListener | None = None
    """Is called with what happens to the connection."""

    def report_stages(self, listener: StageListener) -> None:
        self.listener = listener

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        self.requests.append(request)
        words = _words(request.messages)
        if words >= self.context:
            raise PromptTooLong.of(words, self.context)
        script = self.answers.pop(0) if self.answers else [f"You said: {request.messages[-1].text}"]
        try:
            for number, piece in enumerate(script, start=1):
                await asyncio.sleep(self.seconds)
                if self.gate is not None and number == len(script):
                    await self.gate.wait()
                if isinstance(piece, BackendError):
                    raise piece
                self.delivered += 1
                yield Delta(text=piece)
            yield Delta(finish_reason=self.finish_reason)  # type: ignore[arg-type]
        except (GeneratorExit, asyncio.CancelledError):
            self.stopped += 1
            raise

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        self.counted.append(messages)
        if self.count_error is not None:
            raise self.count_error
        words = _words(messages)
        return TokenCount(count=words, context=self.context, remaining=self.context - words, fits=words < self.context)

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(id=self.model)]

    async def status(self) -> BackendStatus:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(state, BackendError):
            raise state
        return state

    async def clear_kv_states(self) -> None:
        if self.clear_error is not None:
            raise self.clear_error
        self.cleared += 1

    async def aclose(self) -> None:
        self.closed += 1


def _words(messages: list[ChatMessage]) -> int:
    return sum(len(message.text.split()) for message in messages)
