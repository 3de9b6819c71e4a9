"""Waits until something happens that another process, thread or task brings about."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic, sleep

_PAUSE = 0.01


def until(condition: Callable[[], object], seconds: float = 20.0, what: str = "it") -> None:
    """Returns when a condition holds; fails where that takes too long."""
    for _ in _attempts(condition, seconds, what):
        sleep(_PAUSE)


async def until_async(condition: Callable[[], object], seconds: float = 20.0, what: str = "it") -> None:
    """As `until`, while other tasks go on."""
    for _ in _attempts(condition, seconds, what):
        await asyncio.sleep(_PAUSE)


def _attempts(condition: Callable[[], object], seconds: float, what: str) -> Iterator[None]:
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, f"{what} did not happen within {seconds} s"
        yield
