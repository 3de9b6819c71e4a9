"""What the chat needs of a connection; imported for its types only, since it loads the HTTP client."""

from __future__ import annotations

from typing import Protocol

from llama_backend.client.protocols import Backend
from llama_chat.backends.tunnel import Tell


class RoadBackend(Backend, Protocol):
    """A Backend that may be far away, and tells how the road to it is."""

    @property
    def is_local(self) -> bool: ...

    def listen(self, tell: Tell) -> None:
        """Has `tell` hear of what happens on the road."""
        ...

    async def clear_kv_states(self) -> None:
        """Drops what is kept of conversations to go on with them quickly, where that is this user's."""
        ...
