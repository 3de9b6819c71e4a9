"""Limits how many requests an account may begin in a minute."""

from __future__ import annotations

from dataclasses import dataclass

from llama_backend.account import Account
from llama_backend.errors import RateLimited

_MINUTE = 60.0


@dataclass(slots=True)
class _Bucket:
    """Requests that may begin at once; an empty bucket is full again after a minute."""

    left: float
    at: float

    def fill(self, limit: float, now: float) -> None:
        self.left = min(max(limit, 1.0), self.left + (now - self.at) * limit / _MINUTE)
        self.at = now


class RateLimits:
    """A bucket for each account that has a limit."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def take(self, account: Account, now: float) -> None:
        """Counts a request that begins at `now`, in seconds; raises RateLimited with `retry_after`."""
        limit = account.requests_per_minute
        if limit is None:
            return
        bucket = self._buckets.setdefault(account.name, _Bucket(max(limit, 1.0), now))
        bucket.fill(limit, now)
        if bucket.left < 1:
            wait = (1 - bucket.left) * _MINUTE / limit
            text = f"this key may send {limit:g} requests a minute; try again in {wait:.0f} s"
            raise RateLimited(text, retry_after=round(wait, 3))
        bucket.left -= 1
