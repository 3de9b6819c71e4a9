"""Who is next: work that waits, in an order that is fair between accounts.

Each account has a counter of the tokens that were computed for it, divided by its weight, and the one that is behind
is next; within an account it is first come, first served. An account that comes back from a pause starts from where
those who are there have come, so that nobody saves up a claim. (Sheng et al., "Fairness in Serving Large Language
Models", 2024: the virtual token counter.)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar

from llama_backend.account import Account

ANSWER_COST = 2.0
"""A token of an answer counts as much as two of a prompt, which are computed many at once."""


class Queued(Protocol):
    """What can wait in the queue."""

    @property
    def account(self) -> Account: ...


Item = TypeVar("Item", bound=Queued)


@dataclass(slots=True)
class _Line(Generic[Item]):
    """What one account waits for."""

    account: Account
    waiting: deque[tuple[int, Item]] = field(default_factory=deque)
    """With the number of their arrival."""
    running: int = 0
    """Those that were taken and have not ended, also where they were put back."""
    spent: float = 0.0

    @property
    def active(self) -> bool:
        return bool(self.waiting or self.running)

    @property
    def ready(self) -> bool:
        limit = self.account.max_running
        return bool(self.waiting) and (limit is None or self.running < limit)

    @property
    def claim(self) -> tuple[float, int, int]:
        """The smallest is next: who got least, then who has least at work, then who came first."""
        return self.spent, self.running, self.waiting[0][0]


class FairQueue(Generic[Item]):
    """What waits, and how much each account had. Items that were put back come before all others."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[Item]] = {}
        self._returning: deque[Item] = deque()
        self._arrivals = count()
        self._level = 0.0
        """How far the active account that is furthest behind has come."""

    def __len__(self) -> int:
        return len(self._returning) + sum(len(line.waiting) for line in self._lines.values())

    def __iter__(self) -> Iterator[Item]:
        yield from self._returning
        for line in self._lines.values():
            yield from (item for _, item in line.waiting)

    def add(self, item: Item) -> None:
        """Queues what is new."""
        line = self._line(item)
        line.account = item.account
        if not line.active:
            self._rise()
            line.spent = max(line.spent, self._level)
        line.waiting.append((next(self._arrivals), item))

    def put_back(self, item: Item) -> None:
        """Queues what was taken and has to make room: it is next."""
        self._returning.appendleft(item)

    def next(self) -> Item | None:
        """The item whose turn it is; None where all that wait have to wait for others of their account."""
        if self._returning:
            return self._returning[0]
        line = min((line for line in self._lines.values() if line.ready), key=lambda line: line.claim, default=None)
        return line.waiting[0][1] if line else None

    def take(self, item: Item) -> None:
        """Takes the one whose turn it is out of the queue; `done` says when it has ended."""
        if self._returning and self._returning[0] is item:
            self._returning.popleft()
            return
        line = self._line(item)
        line.waiting.popleft()
        line.running += 1

    def charge(self, item: Item, tokens: float) -> None:
        """Notes that as many tokens were computed, or are about to be, for an item's account."""
        self._line(item).spent += tokens / item.account.weight

    def done(self, item: Item) -> None:
        """Notes that an item which was taken has ended."""
        self._rise()
        self._line(item).running -= 1
        self._forget()

    def remove(self, item: Item) -> None:
        """Takes an item out that gave up waiting."""
        if item in self._returning:
            self._returning.remove(item)
            self.done(item)
            return
        self._rise()
        line = self._line(item)
        line.waiting = deque(entry for entry in line.waiting if entry[1] is not item)
        self._forget()

    def _line(self, item: Item) -> _Line[Item]:
        name = item.account.name
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(item.account)
        return line

    def _rise(self) -> None:
        spent = [line.spent for line in self._lines.values() if line.active]
        self._level = max(self._level, min(spent, default=0.0))

    def _forget(self) -> None:
        """Drops accounts that would begin at the common level anyway."""
        if len(self._lines) > 1:
            kept = {name: line for name, line in self._lines.items() if line.active or line.spent > self._level}
            self._lines = kept
