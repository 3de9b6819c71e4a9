"""The memory that the bodies of all requests may take together, from the first byte to the end of the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from llama_backend.account import Account
from llama_backend.errors import BodiesFull

MOST_BYTES = 128 * 1024 * 1024
SMALL_BYTES = 64 * 1024
"""A body up to this size is always taken: a connection needs as much memory anyway."""
_RETRY_SECONDS = 5.0


class BodyBudget:
    """Divides `most` bytes between accounts, so that no account can take all of them.

    An account may have as much as all accounts together leave free: a single one gets up to a half, two get a third
    each, and there is always room for an account that has nothing yet.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._free = most
        self._accounts: Counter[str] = Counter()

    @contextmanager
    def opened(self, account: Account) -> Iterator[BodyShare]:
        """Counts the body of one request until the request ends."""
        body = BodyShare(self, account.name)
        try:
            yield body
        finally:
            self._move(body, -body.size)
            if not self._accounts[account.name]:
                del self._accounts[account.name]

    def grow(self, body: BodyShare, size: int) -> None:
        """Counts bytes that arrived for a body; raises BodiesFull, which carries `retry_after`."""
        self._move(body, size)
        if body.size > SMALL_BYTES and self._accounts[body.account] > self._free:
            raise BodiesFull("the memory for the texts of requests is full; try again soon", retry_after=_RETRY_SECONDS)

    def _move(self, body: BodyShare, size: int) -> None:
        body.size += size
        self._accounts[body.account] += size
        self._free -= size


class BodyShare:
    """The bytes that the body of one request takes."""

    def __init__(self, budget: BodyBudget, account: str) -> None:
        self._budget = budget
        self.account = account
        self.size = 0

    def grow(self, size: int) -> None:
        """Counts `size` bytes more; raises BodiesFull where there is no room for them."""
        self._budget.grow(self, size)
