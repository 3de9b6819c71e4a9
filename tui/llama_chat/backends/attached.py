"""What a front end asks of a backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from llama_backend.client.protocols import (
    ChatBackend,
    Closable,
    KVStateCache,
    ModelLister,
    StatusReporter,
    TokenCounter,
)

if TYPE_CHECKING:
    from llama_chat.backends.tunnel import StageListener


class AttachedBackend(ChatBackend, TokenCounter, ModelLister, StatusReporter, KVStateCache, Closable, Protocol):
    """The backend behind a chat, on this machine or elsewhere; after `aclose` the next request connects again."""

    @property
    def is_local(self) -> bool: ...

    def report_stages(self, listener: StageListener) -> None:
        """Calls `listener` from now on when the connection is opened, waits, breaks or is back."""
        ...
