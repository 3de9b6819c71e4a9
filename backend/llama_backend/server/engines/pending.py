"""Requests to an engine that have not ended; each keeps the engine's outputs until a handler takes them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import msgspec

from llama_backend.errors import BackendError, InternalError, from_wire
from llama_backend.wire.ipc import Count, Counted, Embed, Embedded, SequenceOutput, Submit

EngineRequest = Submit | Embed | Count
Observer = Callable[[SequenceOutput, float], None]
"""Called with each output and the moment at which it came, in seconds of `time.monotonic`."""


class PendingRequest:
    """One request to the engine that has not ended, of any kind.

    A request for several answers has one number for each of them, from `number` on.
    """

    def __init__(self, request: EngineRequest, answers: int = 1) -> None:
        self.request = request
        self.numbers = range(request.id, request.id + answers)
        self.unfinished = set(self.numbers)
        """The numbers of the answers that have not ended."""
        self.prompt_tokens: int | None = None
        """Known once the engine has accepted the request."""
        self.is_read = False
        """Whether a client has seen a part of the answers, so that they cannot be computed again from the start."""
        self.engine_deaths = 0
        """How many engines died while they worked on this request."""
        self.since = 0.0
        """When the present engine got the request or accepted it; 0 while no engine has it."""
        self._error: BackendError | None = None
        self._changed = asyncio.Event()

    @property
    def number(self) -> int:
        return self.numbers.start

    @property
    def finished(self) -> bool:
        return not self.unfinished

    def number_from(self, first: int) -> None:
        """Gives the request and its answers the numbers from `first` on."""
        self.request = msgspec.structs.replace(self.request, id=first)
        self.numbers = range(first, first + len(self.numbers))
        self.unfinished = set(self.numbers)

    def accept(self, prompt_tokens: int, now: float = 0.0) -> None:
        """Notes that the engine has read the prompt and found at `now` that it fits."""
        self.prompt_tokens, self.since = prompt_tokens, now
        self._changed.set()

    def restart(self) -> None:
        """Prepares the request for being computed again by another engine, from the start."""

    def stop(self, error: BackendError) -> None:
        """Ends the wait for a request with an error; the engine may still be working on the request."""
        self._error = self._error or error
        self._changed.set()

    def fail(self, error: BackendError) -> None:
        """Ends the request with an error."""
        self._error = error
        self._finish()

    async def accepted(self) -> None:
        """Returns when the engine has accepted the request; raises the error where it refuses it."""
        await self._wait_until(lambda: self.prompt_tokens is not None)

    def _finish(self) -> None:
        self.unfinished.clear()
        self._changed.set()

    async def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Returns when a condition holds; raises the error of a request that ended before that."""
        while not condition():
            if self._error is not None:
                raise self._error
            await self._wait()

    async def _wait(self) -> None:
        await self._changed.wait()
        self._changed.clear()


class PendingCompletion(PendingRequest):
    """Keeps the outputs of the answers to one prompt.

    The engine never waits for a slow client: outputs are kept, and the client gets all new ones at once.
    """

    def __init__(self, request: Submit, observer: Observer | None = None) -> None:
        super().__init__(request, request.n)
        self._observer = observer
        self._outputs: list[SequenceOutput] = []

    def deliver(self, output: SequenceOutput, now: float = 0.0) -> None:
        """Takes an output that came at `now`, in seconds of `time.monotonic`."""
        if self._observer is not None:
            self._observer(output, now)
        self._outputs.append(output)
        if output.finish_reason is not None:
            self.unfinished.discard(output.id)
        self._changed.set()

    def restart(self) -> None:
        """Drops all outputs, since the answers are computed again."""
        self._outputs.clear()
        self.unfinished = set(self.numbers)

    async def outputs(self) -> AsyncGenerator[SequenceOutput, None]:
        """The outputs as they come, until every answer has its finish reason; raises the request's error."""
        while True:
            outputs, self._outputs = self._outputs, []
            for output in merged(outputs):
                self.is_read = True
                yield _checked(output)
            if self._outputs:
                continue
            if self._error is not None:
                raise self._error
            if self.finished:
                return
            await self._wait()

    async def whole(self) -> list[SequenceOutput]:
        """One output for each answer, once all have ended; raises the error of a request that fails."""
        await self._wait_until(lambda: self.finished and self._error is None)
        return [_checked(output) for output in sorted(merged(self._outputs), key=lambda output: output.id)]


class PendingCount(PendingRequest):
    """Waits for the number of tokens of a text."""

    def __init__(self, request: Count) -> None:
        super().__init__(request)
        self._found: Counted | None = None

    def put(self, counted: Counted) -> None:
        """Takes the answer."""
        self._found = counted
        self._finish()

    async def counted(self) -> Counted:
        """The answer, once it has come; raises the error of a request that fails."""
        await self._wait_until(lambda: self._found is not None)
        assert self._found is not None
        return self._found


class PendingEmbedding(PendingRequest):
    """Gathers the vectors of the texts of one request."""

    def __init__(self, request: Embed) -> None:
        super().__init__(request)
        self._missing = set(range(len(request.inputs)))
        self._found: dict[int, Embedded] = {}

    def put(self, embedded: Embedded) -> None:
        """Takes one vector; after a restart the same one may come again."""
        self._found[embedded.index] = embedded
        self._missing.discard(embedded.index)
        if not self._missing:
            self._finish()

    async def vectors(self) -> list[Embedded]:
        """The vectors in the order of the texts, once all have come; raises the error of a request that fails."""
        await self._wait_until(lambda: self.finished and self._error is None)
        return [self._found[index] for index in sorted(self._found)]


def _checked(output: SequenceOutput) -> SequenceOutput:
    """The same output; raises the error of an answer that ended with one."""
    if output.finish_reason == "error":
        message, code = output.message or "the engine could not finish the answer", output.code or InternalError.code
        raise from_wire({"error": {"message": message, "code": code}}, InternalError.status)
    return output


def merged(outputs: list[SequenceOutput]) -> list[SequenceOutput]:
    """One output for each answer, with the text of all of its outputs and the other fields of its last one."""
    if len(outputs) < 2:
        return outputs
    answers: dict[int, list[SequenceOutput]] = {}
    for output in outputs:
        answers.setdefault(output.id, []).append(output)
    return [_joined(parts) for parts in answers.values()]


def _joined(outputs: list[SequenceOutput]) -> SequenceOutput:
    last = outputs[-1]
    text = "".join(output.text for output in outputs)
    logprobs = None
    if last.logprobs is not None:
        logprobs = [entry for output in outputs for entry in output.logprobs or []]
    return SequenceOutput(
        last.id, text, last.finish_reason, last.usage, last.timings, last.message, logprobs, last.code
    )
