"""Who gets in: a queue of limited length, and an honest estimate for those who are sent away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from llama_backend.account import LOCAL, Account
from llama_backend.errors import QueueFull

_SMOOTH = 0.2
_FIRST_GUESS = 5.0


class Admission:
    """Counts the requests inside and remembers how long they take, in seconds."""

    def __init__(self, max_queue: int) -> None:
        self._max_queue = max_queue
        self._inside = 0
        self._accounts: Counter[str] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._duration = _FIRST_GUESS
        self.last_activity = monotonic()

    @property
    def inside(self) -> int:
        return self._inside

    @contextmanager
    def enter(self, slots: int, places: int = 1, account: Account = LOCAL) -> Iterator[None]:
        """Holds a place for each answer of a request; raises QueueFull where `max_queue` wait already.

        Whoever has less than an equal part of the queue gets in all the same, so that a full queue is no wall that
        one account builds for others. The error carries `retry_after`.
        """
        waiting = self._inside - slots
        if waiting >= self._max_queue and not self._has_claim(account):
            wait = ceil(self._duration * (waiting + 1) / max(slots, 1))
            text = f"{waiting} requests are waiting and no more than {self._max_queue} may; try again in {wait} s"
            raise QueueFull(text, retry_after=wait)
        self._count(account, places)
        self._empty.clear()
        begin = monotonic()
        try:
            yield
        finally:
            self._count(account, -places)
            if self._inside == 0:
                self._empty.set()
            self.last_activity = monotonic()
            self._duration += _SMOOTH * (self.last_activity - begin - self._duration)

    def _has_claim(self, account: Account) -> bool:
        """Whether others are there, and an account has less than its part of the queue."""
        others = len(self._accounts) - (account.name in self._accounts)
        return others > 0 and self._accounts[account.name] < self._max_queue // (others + 1)

    def _count(self, account: Account, places: int) -> None:
        self._inside += places
        self._accounts[account.name] += places
        if not self._accounts[account.name]:
            del self._accounts[account.name]

    async def emptied(self) -> None:
        """Returns when nobody is inside."""
        await self._empty.wait()

    def touch(self) -> None:
        """Notes that somebody is there."""
        self.last_activity = monotonic()
