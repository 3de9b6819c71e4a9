"""A queue that is fair between accounts.

Each account has a counter of the tokens that were computed for it, divided by its weight. The account with the lowest
counter is next; within an account the request that came first is. An account that comes back after a pause starts with
the lowest counter of those that are active, so that a pause brings no advantage. This is the virtual token counter of
Sheng et al., "Fairness in Serving Large Language Models", 2024.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar

from llama_backend.account import Account

ANSWER_COST = 2.0
"""A token of an answer counts as two of a prompt, since many tokens of a prompt are computed at once."""


class Queued(Protocol):
    """What can wait in the queue."""

    @property
    def account(self) -> Account: ...


Item = TypeVar("Item", bound=Queued)


@dataclass(slots=True)
class _Line(Generic[Item]):
    """What waits for one account."""

    account: Account
    waiting: deque[tuple[int, Item]] = field(default_factory=deque)
    """Items with their numbers, in the order of arrival."""
    running: int = 0
    """Items that were taken and are not done, including those that were put back."""
    spent: float = 0.0
    """Tokens that were computed for it, divided by its weight."""

    @property
    def active(self) -> bool:
        """Whether anything of it waits or runs."""
        return bool(self.waiting or self.running)

    @property
    def ready(self) -> bool:
        """Whether something of it waits and may be taken."""
        limit = self.account.max_running
        return bool(self.waiting) and (limit is None or self.running < limit)

    @property
    def rank(self) -> tuple[float, int, int]:
        """The order between accounts, smallest first: by counter, then by running items, then by arrival."""
        return self.spent, self.running, self.waiting[0][0]


class FairQueue(Generic[Item]):
    """Items that wait, and how much each account got. Items that were put back come before all others."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line[Item]] = {}
        self._returning: deque[Item] = deque()
        self._arrivals = count()
        self._level = 0.0
        """The lowest counter of the active accounts; it never falls."""

    def __len__(self) -> int:
        return len(self._returning) + sum(len(line.waiting) for line in self._lines.values())

    def __iter__(self) -> Iterator[Item]:
        yield from self._returning
        for line in self._lines.values():
            yield from (item for _, item in line.waiting)

    def add(self, item: Item) -> None:
        """Queues a new item."""
        line = self._line(item)
        line.account = item.account
        if not line.active:
            self._raise_level()
            line.spent = max(line.spent, self._level)
        line.waiting.append((next(self._arrivals), item))

    def put_back(self, item: Item) -> None:
        """Queues an item again, in front of all others: one that was taken and had to make room for others."""
        self._returning.appendleft(item)

    def next(self) -> Item | None:
        """The item whose turn it is; None where nothing waits, or only items of accounts that are at their limit."""
        if self._returning:
            return self._returning[0]
        line = min((line for line in self._lines.values() if line.ready), key=lambda line: line.rank, default=None)
        return line.waiting[0][1] if line else None

    def take(self, item: Item) -> None:
        """Takes the next item out of the queue. `done` must be called when it has ended."""
        if self._returning and self._returning[0] is item:
            self._returning.popleft()
            return
        line = self._line(item)
        line.waiting.popleft()
        line.running += 1

    def charge(self, item: Item, tokens: float) -> None:
        """Adds tokens that were computed, or are about to be, to the counter of an item's account."""
        self._line(item).spent += tokens / item.account.weight

    def done(self, item: Item) -> None:
        """Notes that an item that was taken has ended."""
        self._raise_level()
        self._line(item).running -= 1
        self._drop_inactive()

    def remove(self, item: Item) -> None:
        """Takes an item that is no longer wanted out of the queue."""
        if item in self._returning:
            self._returning.remove(item)
            self.done(item)
            return
        self._raise_level()
        line = self._line(item)
        line.waiting = deque(entry for entry in line.waiting if entry[1] is not item)
        self._drop_inactive()

    def _line(self, item: Item) -> _Line[Item]:
        name = item.account.name
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(item.account)
        return line

    def _raise_level(self) -> None:
        spent = [line.spent for line in self._lines.values() if line.active]
        self._level = max(self._level, min(spent, default=0.0))

    def _drop_inactive(self) -> None:
        """Drops the inactive accounts whose counters would start at the lowest active one anyway."""
        if len(self._lines) > 1:
            kept = {name: line for name, line in self._lines.items() if line.active or line.spent > self._level}
            self._lines = kept
