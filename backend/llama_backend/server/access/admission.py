"""The queue of limited length before the engines, and how long a refused client should wait."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic

from llama_backend.account import LOCAL, Account
from llama_backend.errors import QueueFull

_SMOOTHING = 0.2
"""The weight of the latest request in the average duration."""
_FIRST_GUESS = 5.0
"""The average duration in seconds before any request has ended."""


class Admission:
    """Counts the requested answers that have not ended, and measures how long requests take."""

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
        """Requested answers that have not ended."""
        return self._inside

    @contextmanager
    def enter(self, slots: int, places: int = 1, account: Account = LOCAL) -> Iterator[None]:
        """Holds a place for each answer of a request during the block.

        Raises QueueFull with `retry_after` where `max_queue` answers wait already. An account with less than an equal
        share of the queue is admitted even then, so that no account can fill the queue for all others.
        """
        waiting = self._inside - slots
        if waiting >= self._max_queue and not self._is_below_its_share(account):
            wait = ceil(self._duration * (waiting + 1) / max(slots, 1))
            text = f"the queue is full: {waiting} requests wait, of at most {self._max_queue}; try again in {wait} s"
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
            self._duration += _SMOOTHING * (self.last_activity - begin - self._duration)

    def _is_below_its_share(self, account: Account) -> bool:
        """Whether other accounts have requests here, and this account has less than an equal share of the queue."""
        others = len(self._accounts) - (account.name in self._accounts)
        return others > 0 and self._accounts[account.name] < self._max_queue // (others + 1)

    def _count(self, account: Account, places: int) -> None:
        self._inside += places
        self._accounts[account.name] += places
        if not self._accounts[account.name]:
            del self._accounts[account.name]

    async def emptied(self) -> None:
        """Returns when no answer is left."""
        await self._empty.wait()

    def touch(self) -> None:
        """Notes that the server is in use."""
        self.last_activity = monotonic()
