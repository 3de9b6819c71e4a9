"""Who is next: sequences that wait, in an order that is fair between accounts.

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

from llama_backend.account import Account
from llama_backend.engine.sequence import Sequence

ANSWER_COST = 2.0
"""A token of an answer counts as much as two of a prompt, which are computed many at once."""


@dataclass(slots=True)
class _Line:
    """One account's sequences."""

    account: Account
    waiting: deque[tuple[int, Sequence]] = field(default_factory=deque)
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


class FairQueue:
    """The sequences that wait, and how much each account had. Those that were preempted come before all others."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._returning: deque[Sequence] = deque()
        self._arrivals = count()
        self._level = 0.0
        """How far the active account that is furthest behind has come."""

    def __len__(self) -> int:
        return len(self._returning) + sum(len(line.waiting) for line in self._lines.values())

    def __iter__(self) -> Iterator[Sequence]:
        yield from self._returning
        for line in self._lines.values():
            yield from (sequence for _, sequence in line.waiting)

    def add(self, sequence: Sequence) -> None:
        """Queues a new sequence."""
        line = self._line(sequence)
        line.account = sequence.account
        if not line.active:
            self._rise()
            line.spent = max(line.spent, self._level)
        line.waiting.append((next(self._arrivals), sequence))

    def put_back(self, sequence: Sequence) -> None:
        """Queues a sequence that was taken and has to make room: it is next."""
        self._returning.appendleft(sequence)

    def next(self) -> Sequence | None:
        """The sequence whose turn it is; None where all that wait have to wait for others of their account."""
        if self._returning:
            return self._returning[0]
        line = min((line for line in self._lines.values() if line.ready), key=lambda line: line.claim, default=None)
        return line.waiting[0][1] if line else None

    def take(self, sequence: Sequence) -> None:
        """Takes the one whose turn it is out of the queue; `done` says when it has ended."""
        if self._returning and self._returning[0] is sequence:
            self._returning.popleft()
            return
        line = self._line(sequence)
        line.waiting.popleft()
        line.running += 1

    def charge(self, sequence: Sequence, tokens: float) -> None:
        """Notes that as many tokens were computed, or are about to be, for a sequence's account."""
        self._line(sequence).spent += tokens / sequence.account.weight

    def done(self, sequence: Sequence) -> None:
        """Notes that a sequence which was taken has ended."""
        self._rise()
        self._line(sequence).running -= 1
        self._forget()

    def remove(self, sequence: Sequence) -> None:
        """Takes a sequence out that gave up waiting."""
        if sequence in self._returning:
            self._returning.remove(sequence)
            self.done(sequence)
            return
        self._rise()
        line = self._line(sequence)
        line.waiting = deque(item for item in line.waiting if item[1] is not sequence)
        self._forget()

    def _line(self, sequence: Sequence) -> _Line:
        name = sequence.account.name
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(sequence.account)
        return line

    def _rise(self) -> None:
        spent = [line.spent for line in self._lines.values() if line.active]
        self._level = max(self._level, min(spent, default=0.0))

    def _forget(self) -> None:
        """Drops accounts that would begin at the common level anyway."""
        if len(self._lines) > 1:
            kept = {name: line for name, line in self._lines.items() if line.active or line.spent > self._level}
            self._lines = kept
