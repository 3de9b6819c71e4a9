"""What a front end asks of a backend."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
    from llama_backend.wire.status import BackendStatus
    from llama_chat.backends.tunnel import StageListener


class ChatBackend(Protocol):
    """Answers chat requests."""

    def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """The answer in pieces, the last with a finish reason; raises BackendError.

        Closing the iterator stops the work.
        """
        ...


class AttachedBackend(ChatBackend, Protocol):
    """The backend behind a chat, on this machine or elsewhere; its requests raise BackendError."""

    @property
    def is_local(self) -> bool: ...

    def report_stages(self, listener: StageListener) -> None:
        """Calls `listener` from now on when the connection is opened, waits, breaks or is back."""
        ...

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        """The exact prompt tokens of a conversation."""
        ...

    async def models(self) -> list[ModelInfo]: ...

    async def status(self) -> BackendStatus: ...

    async def clear_kv_states(self) -> None:
        """Deletes the KV states that are kept of this user's conversations; does nothing on a shared backend."""
        ...

    async def aclose(self) -> None:
        """Closes the connection; the next request opens a new one."""
        ...
