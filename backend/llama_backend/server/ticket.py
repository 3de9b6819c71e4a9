"""One request on its way through the engine, as the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from llama_backend.errors import BackendError, InternalError
from llama_backend.ipc import Piece


class Ticket:
    """Gathers what the engine sends for one request until a handler takes it.

    Nothing waits for a slow reader: pieces are kept, and the reader gets all that came since last time at once.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.prompt_tokens: int | None = None
        """Known from acceptance on."""
        self.finished = False
        self._pieces: list[Piece] = []
        self._error: BackendError | None = None
        self._changed = asyncio.Event()

    def accept(self, prompt_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self._changed.set()

    def deliver(self, piece: Piece) -> None:
        self._pieces.append(piece)
        self.finished = self.finished or piece.finish_reason is not None
        self._changed.set()

    def fail(self, error: BackendError) -> None:
        self._error = error
        self.finished = True
        self._changed.set()

    async def accepted(self) -> None:
        """Returns when the prompt is known to fit; raises the refusal otherwise."""
        while self.prompt_tokens is None:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """What comes, until the piece with a finish reason; raises where the request fails."""
        while True:
            pieces, self._pieces = self._pieces, []
            for piece in merged(pieces):
                if piece.finish_reason == "error":
                    raise InternalError(piece.message or "the engine could not finish the answer")
                yield piece
                if piece.finish_reason is not None:
                    return
            if self._pieces:
                continue
            if self._error is not None:
                raise self._error
            await self._wait()

    async def _wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()


def merged(pieces: list[Piece]) -> list[Piece]:
    """The same text in at most one piece, which has what the last one has besides."""
    if len(pieces) < 2:
        return pieces
    last = pieces[-1]
    text = "".join(piece.text for piece in pieces)
    return [Piece(last.id, text, last.finish_reason, last.usage, last.timings, last.message)]
