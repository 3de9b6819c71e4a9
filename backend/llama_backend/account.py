"""Whose requests these are: who shares the engine with others gets a part of it that follows from this."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct


class Account(Struct, frozen=True):
    """One user of a server, and what it may take."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._@-]{1,64}\Z")] = "local"
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    """In a crowd it gets this many times as many tokens as one of weight 1."""
    max_running: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """Answers that may be computed at the same time by one model; more of them wait."""
    requests_per_minute: Annotated[float, Meta(gt=0, le=1e6)] | None = None


LOCAL = Account()
"""Everybody on the Unix socket, and on a server without keys."""
