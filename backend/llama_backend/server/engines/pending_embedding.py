"""A request for embeddings on its way through the engine."""

from __future__ import annotations

from llama_backend.server.engines.pending import Ticket
from llama_backend.wire.ipc import Embedded


class EmbeddingTicket(Ticket):
    """Gathers the vectors of the `count` texts of one request."""

    def __init__(self, number: int, count: int) -> None:
        super().__init__(number)
        self._left = set(range(count))
        self._found: dict[int, Embedded] = {}

    def put(self, embedded: Embedded) -> None:
        """Takes one vector."""
        self._found[embedded.index] = embedded
        self._left.discard(embedded.index)
        if not self._left:
            self.unfinished.clear()
            self._changed.set()

    def restart(self) -> None:
        """Goes on waiting: what came stays right, and comes once more."""

    async def vectors(self) -> list[Embedded]:
        """The vectors in the order of the texts, once all are there; raises where the request fails."""
        while not self.finished and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        return [self._found[index] for index in sorted(self._found)]
