"""The memory that the bodies of all requests may take together, from their first byte to the end of the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from llama_backend.account import Account
from llama_backend.errors import BodiesFull

MOST_BYTES = 128 * 1024 * 1024
SMALL_BYTES = 64 * 1024
"""A body of this size always has room: a connection takes as much memory anyway."""
_RETRY_SECONDS = 5.0


class Bodies:
    """Shares out bytes so that who takes much leaves as much to others, whom nobody can keep out for that reason.

    An account may have as much as all accounts leave free: one alone gets up to a half, two get a third each, and there
    is always room for one that has nothing yet.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._free = most
        self._accounts: Counter[str] = Counter()

    @contextmanager
    def opened(self, account: Account) -> Iterator[Body]:
        """The body of one request, for as long as the request is there."""
        body = Body(self, account.name)
        try:
            yield body
        finally:
            self._move(body, -body.size)
            if not self._accounts[account.name]:
                del self._accounts[account.name]

    def grow(self, body: Body, size: int) -> None:
        """Counts bytes that came for a body; raises BodiesFull, which carries `retry_after`."""
        self._move(body, size)
        if body.size > SMALL_BYTES and self._accounts[body.account] > self._free:
            raise BodiesFull("too much text of other requests is waiting; try again soon", retry_after=_RETRY_SECONDS)

    def _move(self, body: Body, size: int) -> None:
        body.size += size
        self._accounts[body.account] += size
        self._free -= size


class Body:
    """What one request has of it, in bytes."""

    def __init__(self, bodies: Bodies, account: str) -> None:
        self._bodies = bodies
        self.account = account
        self.size = 0

    def grow(self, size: int) -> None:
        """Raises BodiesFull where there is no room for `size` bytes more."""
        self._bodies.grow(self, size)
