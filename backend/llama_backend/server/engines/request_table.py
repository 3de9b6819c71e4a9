"""The requests that were handed to an engine and have not ended, and what becomes of them when it dies."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from time import monotonic

from llama_backend.crash_notes import Suspects
from llama_backend.errors import BackendError, EngineDied, InvalidRequest, RequestEndsEngine, from_wire
from llama_backend.server.engines.pending import Ticket
from llama_backend.server.engines.pending_count import CountTicket
from llama_backend.server.engines.pending_embedding import EmbeddingTicket
from llama_backend.wire.ipc import Accepted, Cancel, Count, Counted, Embed, Embedded, Refused, StepDone, Submit

_MOST_DEATHS = 2
"""A request that was at work when so many engines died is not given to another."""

Request = Submit | Embed | Count
Send = Callable[[Request | Cancel], None]


class Ledger:
    """Tickets and their requests. Those that come while there is no engine wait for the next one.

    Those under suspicion, since an engine died while they were at work, are handed to the next one after another, so
    that another death tells which it was: that one fails, and the others do not.
    """

    def __init__(self) -> None:
        self._numbers = count(1)
        self._tickets: dict[int, Ticket] = {}
        self._requests: dict[int, Request] = {}
        self._send: Send | None = None
        self._held = deque[Ticket]()
        """Those under suspicion that wait for their turn."""
        self._tried: Ticket | None = None
        """The one of them that is at work."""
        self._last_read = self._last_step = monotonic()

    def __len__(self) -> int:
        return len(self._tickets)

    def numbers(self, n: int = 1) -> list[int]:
        """Consecutive numbers that no request had before."""
        return [next(self._numbers) for _ in range(n)]

    def open(self, ticket: Ticket, request: Request) -> None:
        """Takes in a request, which must be closed in the end."""
        self._tickets |= dict.fromkeys(ticket.numbers, ticket)
        self._requests[ticket.number] = request
        self._hand_over(ticket)

    def close(self, ticket: Ticket) -> None:
        """Forgets a request; answers that have not ended are cancelled."""
        self._requests.pop(ticket.number, None)
        for number in ticket.numbers:
            if self._tickets.pop(number, None) is not None and number in ticket.unfinished and self._send:
                self._send(Cancel(number))
        ticket.unfinished.clear()
        self._try_next()

    def engine_ready(self, send: Send) -> None:
        """Hands what waits to an engine."""
        self._send = send
        self._last_step = self._last_read = monotonic()
        for ticket in self._open:
            if ticket.deaths:
                self._held.append(ticket)
            else:
                self._hand_over(ticket)
        self._try_next()

    def engine_died(self, suspects: Suspects, reason: str) -> None:
        """Fails those whom no other engine may or can answer, and keeps the rest for the next one.

        They are the one whose grammar was at work, those who have read a part, and those at work for the second time.
        """
        self._disconnect()
        for ticket in self._open:
            ticket.deaths += not suspects.all.isdisjoint(ticket.numbers)
            if suspects.grammar in ticket.numbers:
                ticket.fail(InvalidRequest("grammar: llama.cpp ended on it", param="grammar"))
            elif ticket.deaths >= _MOST_DEATHS:
                ticket.fail(RequestEndsEngine(f"twice {reason} while this request was at work; it is not tried again"))
            elif ticket.is_read:
                ticket.fail(EngineDied(reason, retry_after=2))
            else:
                ticket.restart()

    def fail_all(self, error: BackendError) -> None:
        """Fails all requests, where there will be no engine for them."""
        self._disconnect()
        for ticket in self._open:
            ticket.fail(error)

    def take(self, event: StepDone | Accepted | Refused | Embedded | Counted) -> None:
        """Tells a ticket what came for it."""
        now = monotonic()
        match event:
            case StepDone():
                self._last_step = now
                for piece in event.outputs:
                    if ticket := self._tickets.get(piece.id):
                        ticket.deliver(piece, now)
            case Embedded():
                self._last_step = now
                if isinstance(ticket := self._tickets.get(event.id), EmbeddingTicket):
                    ticket.put(event)
            case Accepted(number, prompt_tokens):
                self._last_read = now
                if ticket := self._tickets.get(number):
                    ticket.accept(prompt_tokens, now)
            case Counted():
                self._last_read = now
                if isinstance(ticket := self._tickets.get(event.id), CountTicket):
                    ticket.put(event)
            case Refused():
                self._last_read = now
                self._refuse(event)
        self._try_next()

    def reading_silence(self) -> float:
        """Seconds for which the engine has said nothing to requests that it has yet to read."""
        return _silence(self._last_read, [ticket.since for ticket in self._sent if ticket.prompt_tokens is None])

    def step_silence(self) -> float:
        """Seconds for which it has ended no step, though there are requests that it has read."""
        return _silence(self._last_step, [ticket.since for ticket in self._sent if ticket.prompt_tokens is not None])

    @property
    def _open(self) -> list[Ticket]:
        return [ticket for ticket in dict.fromkeys(self._tickets.values()) if not ticket.finished]

    @property
    def _sent(self) -> Iterator[Ticket]:
        return (ticket for ticket in self._open if ticket.since)

    def _hand_over(self, ticket: Ticket) -> None:
        if self._send is not None:
            ticket.since = monotonic()
            self._send(self._requests[ticket.number])

    def _try_next(self) -> None:
        """Hands over the next one under suspicion, where none is at work."""
        while self._send is not None and (self._tried is None or self._tried.finished):
            self._tried = self._held.popleft() if self._held else None
            if self._tried is None:
                return
            if not self._tried.finished:
                self._hand_over(self._tried)

    def _disconnect(self) -> None:
        self._send = self._tried = None
        self._held.clear()
        for ticket in self._open:
            ticket.since = 0.0

    def _refuse(self, refused: Refused) -> None:
        error = {"message": refused.message, "code": refused.code, "param": refused.param}
        details = {"prompt_tokens": refused.prompt_tokens, "context": refused.context}
        if ticket := self._tickets.get(refused.id):
            ticket.fail(from_wire({"error": error | details}, 400))


def _silence(last: float, since: list[float]) -> float:
    return monotonic() - max(last, min(since)) if since else 0.0
