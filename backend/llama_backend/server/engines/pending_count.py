"""A request to count tokens on its way through the engine."""

from __future__ import annotations

from llama_backend.server.engines.pending import Ticket
from llama_backend.wire.ipc import Counted


class CountTicket(Ticket):
    """Waits for the one answer."""

    _found: Counted | None = None

    def put(self, counted: Counted) -> None:
        """Takes the answer."""
        self._found = counted
        self.unfinished.clear()
        self._changed.set()

    async def counted(self) -> Counted:
        """The answer, once it is there; raises where the request fails."""
        while self._found is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._found
