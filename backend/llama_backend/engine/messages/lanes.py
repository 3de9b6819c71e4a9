"""Cuts the texts of requests into tokens, in an order that is fair between accounts: short and long ones separately.

llama.cpp cuts about a megabyte a second into tokens and cannot be interrupted. So long texts have a thread of their
own, with a lower priority, and a short text never waits for a long one.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from llama_backend.crash_notes import CrashNotes
from llama_backend.fair_queue import FairQueue
from llama_backend.wire.api import ChatMessage
from llama_backend.wire.ipc import Count, Embed, Event, Submit

LONG = 64 * 1024
"""A text of more characters counts as long; so many take a tenth of a second."""
_LEAST = 1000
"""The least characters that an account is charged for a request."""
_NICE = 5
"""The nice value of the thread for long texts."""
_TOKEN_SIZE = 4
"""Characters that a token id counts as."""

Request = Submit | Count | Embed


@dataclass(frozen=True)
class Reply:
    """The result of a request: an event for the server, and perhaps work for the engine after it."""

    event: Event
    proceed: Callable[[], None] | None = None
    """Called after the event was sent, unless the request was cancelled."""


def size_of(request: Request) -> int:
    """About how many characters a request has."""
    if isinstance(request, Embed):
        return sum(map(_size, request.inputs))
    if request.messages is not None:
        return sum(map(_message_size, request.messages))
    return _size(request.prompt or "")


def _size(text: str | list[int]) -> int:
    return len(text) if isinstance(text, str) else _TOKEN_SIZE * len(text)


def _message_size(message: ChatMessage) -> int:
    return len(message.text)


class Lane(threading.Thread):
    """A thread that answers requests one after another."""

    def __init__(
        self,
        place: int,
        answer: Callable[[Request], Reply],
        send: Callable[[Event], None],
        notes: CrashNotes,
        nice: int = 0,
    ) -> None:
        """`place` is that of its crash notes, and `nice` the nice value of the thread."""
        super().__init__(name=f"lane {place}", daemon=True)
        self._place = place
        self._answer = answer
        self._send = send
        self._notes = notes
        self._nice = nice
        self._queue = FairQueue[Request]()
        self._changed = threading.Condition()
        self._wanted: int | None = None
        """The number of the request that is being answered, unless it was cancelled."""

    def add(self, request: Request) -> None:
        """Queues a request."""
        with self._changed:
            self._queue.add(request)
            self._changed.notify()

    def cancel(self, number: int) -> None:
        """Drops a request. If it was answered already, the engine has it by now; otherwise the engine never gets it."""
        with self._changed:
            for request in [request for request in self._queue if request.id == number]:
                self._queue.remove(request)
            if self._wanted == number:
                self._wanted = None

    def run(self) -> None:
        """Works until the process ends."""
        if self._nice and sys.platform == "linux":
            with suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._nice)
        while True:
            request = self._next()
            with self._notes.reading(self._place, request.id):
                reply = self._answer(request)
            self._finish(request, reply)

    def _next(self) -> Request:
        with self._changed:
            while (request := self._queue.next()) is None:
                self._changed.wait()
            self._queue.take(request)
            self._wanted = request.id
            return request

    def _finish(self, request: Request, reply: Reply) -> None:
        with self._changed:
            is_wanted, self._wanted = self._wanted is not None, None
            self._queue.charge(request, max(size_of(request), _LEAST))
            self._queue.done(request)
            if is_wanted:
                self._send(reply.event)
                if reply.proceed is not None:
                    reply.proceed()


class Lanes:
    """A lane for short texts and one for long ones."""

    def __init__(self, answer: Callable[[Request], Reply], send: Callable[[Event], None], notes: CrashNotes) -> None:
        self._short = Lane(0, answer, send, notes)
        self._long = Lane(1, answer, send, notes, _NICE)

    def start(self) -> None:
        self._short.start()
        self._long.start()

    def add(self, request: Request) -> None:
        """Queues a request."""
        (self._long if size_of(request) > LONG else self._short).add(request)

    def cancel(self, number: int) -> None:
        """Drops a request from the lane that has it."""
        self._short.cancel(number)
        self._long.cancel(number)
