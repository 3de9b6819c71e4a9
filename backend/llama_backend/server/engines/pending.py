"""One request on its way through the engine, as the server sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from llama_backend.errors import BackendError, InternalError, from_wire
from llama_backend.wire.ipc import SequenceOutput

Observer = Callable[[SequenceOutput, float], None]
"""Called with each piece and the moment at which it came, in seconds of `time.monotonic`."""


class Ticket:
    """Gathers what the engine sends for one request until a handler takes it.

    A request for several answers has as many numbers, from `number` on. Nothing waits for a slow reader: pieces are
    kept, and the reader gets all that came since last time at once.
    """

    def __init__(self, number: int, n: int = 1, observer: Observer | None = None) -> None:
        self.number = number
        self.numbers = range(number, number + n)
        self.unfinished = set(self.numbers)
        """The numbers of the answers that have not ended."""
        self.prompt_tokens: int | None = None
        """Known from acceptance on."""
        self.is_read = False
        """Somebody has seen a part of the answers, so that they cannot be computed again from their start."""
        self.deaths = 0
        """How many engines ended while this request was at work."""
        self.since = 0.0
        """When it was handed to the engine that has it, or accepted by that; 0 where no engine has it."""
        self._observer = observer
        self._pieces: list[SequenceOutput] = []
        self._error: BackendError | None = None
        self._changed = asyncio.Event()

    @property
    def finished(self) -> bool:
        return not self.unfinished

    def accept(self, prompt_tokens: int, now: float = 0.0) -> None:
        """Notes that the prompt fits, as was known at `now`."""
        self.prompt_tokens, self.since = prompt_tokens, now
        self._changed.set()

    def deliver(self, piece: SequenceOutput, now: float = 0.0) -> None:
        """Takes a piece that came at `now`, in seconds of `time.monotonic`."""
        if self._observer is not None:
            self._observer(piece, now)
        self._pieces.append(piece)
        if piece.finish_reason is not None:
            self.unfinished.discard(piece.id)
        self._changed.set()

    def restart(self) -> None:
        """Forgets what came, since the answers are computed again."""
        self._pieces.clear()
        self.unfinished = set(self.numbers)

    def stop(self, error: BackendError) -> None:
        """Ends the reading of a request with an error, while the engine may still be at work on it."""
        self._error = self._error or error
        self._changed.set()

    def fail(self, error: BackendError) -> None:
        self._error = error
        self.unfinished.clear()
        self._changed.set()

    async def accepted(self) -> None:
        """Returns when the prompt is known to fit; raises the refusal otherwise."""
        while self.prompt_tokens is None:
            if self._error is not None:
                raise self._error
            await self._wait()

    async def pieces(self) -> AsyncGenerator[SequenceOutput, None]:
        """What comes, until each answer has had its piece with a finish reason; raises where the request fails."""
        while True:
            pieces, self._pieces = self._pieces, []
            for piece in merged(pieces):
                self.is_read = True
                yield _checked(piece)
            if self._pieces:
                continue
            if self._error is not None:
                raise self._error
            if self.finished:
                return
            await self._wait()

    async def whole(self) -> list[SequenceOutput]:
        """One piece for each answer, once all have ended; raises where the request fails."""
        while not self.finished and self._error is None:
            await self._wait()
        if self._error is not None:
            raise self._error
        pieces = sorted(merged(self._pieces), key=lambda piece: piece.id)
        return [_checked(piece) for piece in pieces]

    async def _wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()


def _checked(piece: SequenceOutput) -> SequenceOutput:
    if piece.finish_reason == "error":
        message, code = piece.message or "the engine could not finish the answer", piece.code or InternalError.code
        raise from_wire({"error": {"message": message, "code": code}}, InternalError.status)
    return piece


def merged(pieces: list[SequenceOutput]) -> list[SequenceOutput]:
    """The same text in at most one piece for each answer, which has what the last one has besides."""
    if len(pieces) < 2:
        return pieces
    answers: dict[int, list[SequenceOutput]] = {}
    for piece in pieces:
        answers.setdefault(piece.id, []).append(piece)
    return [_joined(parts) for parts in answers.values()]


def _joined(pieces: list[SequenceOutput]) -> SequenceOutput:
    last = pieces[-1]
    text = "".join(piece.text for piece in pieces)
    logprobs = None
    if last.logprobs is not None:
        logprobs = [entry for piece in pieces for entry in piece.logprobs or []]
    return SequenceOutput(
        last.id, text, last.finish_reason, last.usage, last.timings, last.message, logprobs, last.code
    )
