"""The open requests to one model's engine, and what happens to them when the engine dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from llama_backend.crash_notes import Suspects
from llama_backend.errors import BackendError, EngineDied, InvalidRequest, RequestEndsEngine, from_wire
from llama_backend.server.engines.pending import (
    EngineRequest,
    PendingCompletion,
    PendingCount,
    PendingEmbedding,
    PendingRequest,
)
from llama_backend.wire.ipc import Accepted, Cancel, Counted, Embedded, Refused, StepDone

_MOST_DEATHS = 2
"""A request is not given to another engine after so many engines have died while they worked on it."""

Send = Callable[[EngineRequest | Cancel], None]
Pending = TypeVar("Pending", bound=PendingRequest)


class RequestTable:
    """All open requests, by number. Those that arrive while there is no engine wait for the next one.

    Requests that an engine worked on when it died are suspects: the next engine gets them one after another, so that
    another death shows which of them it was. That one fails, and the others are answered.
    """

    def __init__(self) -> None:
        self._next_number = 1
        self._pending: dict[int, PendingRequest] = {}
        self._send: Send | None = None
        self._suspects = _SuspectQueue()
        self._last_read = self._last_step = monotonic()

    def __len__(self) -> int:
        """How many numbers are in use: one for each answer of a request that has not been closed."""
        return len(self._pending)

    @contextmanager
    def opened(self, pending: Pending) -> Iterator[Pending]:
        """Hands a request to the engine for the length of a block; at its end, unfinished answers are cancelled."""
        self._open(pending)
        try:
            yield pending
        finally:
            self._close(pending)

    def engine_ready(self, send: Send) -> None:
        """Hands the waiting requests to an engine by `send`."""
        self._send = send
        self._last_step = self._last_read = monotonic()
        for pending in self._unfinished:
            if pending.engine_deaths:
                self._suspects.add(pending)
            else:
                self._hand_over(pending)
        self._try_next_suspect()

    def engine_died(self, suspects: Suspects, reason: str) -> None:
        """Fails the requests that cannot be computed again, and keeps the others for the next engine.

        These fail: the one whose grammar llama.cpp was working on, those of which the client has already received a
        part, and those that two engines have died on.
        """
        self._disconnect()
        for pending in self._unfinished:
            pending.engine_deaths += not suspects.all.isdisjoint(pending.numbers)
            if suspects.grammar in pending.numbers:
                text = "grammar: llama.cpp crashed or took too long on it; simplify the grammar"
                pending.fail(InvalidRequest(text, param="grammar"))
            elif pending.engine_deaths >= _MOST_DEATHS:
                text = f"twice {reason} while it worked on this request; it is not tried again"
                pending.fail(RequestEndsEngine(text))
            elif pending.is_read:
                pending.fail(EngineDied(reason, retry_after=2))
            else:
                pending.restart()

    def fail_all(self, error: BackendError) -> None:
        """Fails all requests, since no other engine will be started."""
        self._disconnect()
        for pending in self._unfinished:
            pending.fail(error)

    def take(self, event: StepDone | Accepted | Refused | Embedded | Counted) -> None:
        """Passes an event of the engine on to its requests."""
        now = monotonic()
        if isinstance(event, StepDone | Embedded):
            self._last_step = now
        else:
            self._last_read = now
        if isinstance(event, StepDone):
            self._deliver(event, now)
        elif pending := self._pending.get(event.id):
            _pass_on(event, pending, now)
        self._try_next_suspect()

    def reading_silence(self) -> float:
        """Seconds for which the engine has answered no request that it has yet to accept; 0 where there is none."""
        return _silence(self._last_read, [sent.since for sent in self._sent if sent.prompt_tokens is None])

    def step_silence(self) -> float:
        """Seconds for which the engine has ended no step although it has accepted requests; 0 where it has none."""
        return _silence(self._last_step, [sent.since for sent in self._sent if sent.prompt_tokens is not None])

    @property
    def _unfinished(self) -> list[PendingRequest]:
        return [pending for pending in dict.fromkeys(self._pending.values()) if not pending.finished]

    @property
    def _sent(self) -> Iterator[PendingRequest]:
        return (pending for pending in self._unfinished if pending.since)

    def _open(self, pending: PendingRequest) -> None:
        pending.number_from(self._next_number)
        self._next_number += len(pending.numbers)
        self._pending |= dict.fromkeys(pending.numbers, pending)
        self._hand_over(pending)

    def _close(self, pending: PendingRequest) -> None:
        for number in pending.numbers:
            if self._pending.pop(number, None) is not None and number in pending.unfinished and self._send:
                self._send(Cancel(number))
        pending.unfinished.clear()
        self._try_next_suspect()

    def _deliver(self, step: StepDone, now: float) -> None:
        for output in step.outputs:
            if isinstance(pending := self._pending.get(output.id), PendingCompletion):
                pending.deliver(output, now)

    def _hand_over(self, pending: PendingRequest) -> None:
        if self._send is not None:
            pending.since = monotonic()
            self._send(pending.request)

    def _try_next_suspect(self) -> None:
        while self._send is not None and (suspect := self._suspects.next()) is not None:
            self._hand_over(suspect)

    def _disconnect(self) -> None:
        self._send = None
        self._suspects.clear()
        for pending in self._unfinished:
            pending.since = 0.0


class _SuspectQueue:
    """Requests that may have caused an engine's death; only one of them is tried at a time."""

    def __init__(self) -> None:
        self._waiting = deque[PendingRequest]()
        self._tried: PendingRequest | None = None

    def add(self, pending: PendingRequest) -> None:
        self._waiting.append(pending)

    def next(self) -> PendingRequest | None:
        """The suspect to try now, or None while another one is tried or where none is left."""
        if self._tried is not None and not self._tried.finished:
            return None
        while self._waiting:
            self._tried = self._waiting.popleft()
            if not self._tried.finished:
                return self._tried
        self._tried = None
        return None

    def clear(self) -> None:
        self._waiting.clear()
        self._tried = None


def _pass_on(event: Accepted | Refused | Embedded | Counted, pending: PendingRequest, now: float) -> None:
    match event:
        case Accepted():
            pending.accept(event.prompt_tokens, now)
        case Refused():
            pending.fail(_refusal(event))
        case Embedded() if isinstance(pending, PendingEmbedding):
            pending.put(event)
        case Counted() if isinstance(pending, PendingCount):
            pending.put(event)


def _refusal(refused: Refused) -> BackendError:
    error = {"message": refused.message, "code": refused.code, "param": refused.param}
    details = {"prompt_tokens": refused.prompt_tokens, "context": refused.context}
    return from_wire({"error": error | details}, 400)


def _silence(last: float, since: list[float]) -> float:
    return monotonic() - max(last, min(since)) if since else 0.0
