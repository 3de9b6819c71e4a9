"""What callers need of a backend: one protocol for each purpose. All methods raise BackendError."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
from llama_backend.wire.status import BackendStatus


class ChatBackend(Protocol):
    """Answers conversations."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answer in parts, the last of which has a finish reason. Closing the generator stops the work."""
        ...


class TokenCounter(Protocol):
    """Counts tokens."""

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        """The exact number of prompt tokens of a conversation."""
        ...


class ModelLister(Protocol):
    """Lists models."""

    async def models(self) -> list[ModelInfo]:
        """The models that requests may name."""
        ...


class StatusReporter(Protocol):
    """Reports its state."""

    async def status(self) -> BackendStatus:
        """The state of the server and its engines."""
        ...


class KVStateCache(Protocol):
    """Keeps KV states of conversations."""

    async def clear_kv_states(self) -> None:
        """Drops the KV states that a local backend keeps so that conversations continue quickly."""
        ...


class Closable(Protocol):
    """Holds a connection."""

    async def aclose(self) -> None:
        """Closes the connection."""
        ...


class Backend(ChatBackend, TokenCounter, ModelLister, StatusReporter, Closable, Protocol):
    """All that a front end needs; a function that needs less should ask for one of the protocols above."""
