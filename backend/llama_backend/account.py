"""Whose requests these are: who shares the engine with others gets a part of it that follows from this."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta, Struct


class Account(Struct, frozen=True):
    """One user of a server, and what it may take."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._@-]{1,64}\Z")] = "local"
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    """In a crowd it gets this many times as many tokens as one of weight 1."""
    max_running: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """Answers that may be computed at the same time by one model; more of them wait."""
    requests_per_minute: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    identity: str | None = None
    """What tells an account from others for good, where its name does not; it is secret, and cannot be set."""


def scope_of(account: Account, is_shared: bool, salt: str | None) -> str:
    """A name for those who may use each other's KV cells: an account, or all where `is_shared`, with the same salt.

    It is a digest, so that a salt, which is a secret between those who use it, stands nowhere. (vLLM's `cache_salt`.)
    """
    whose = None if is_shared else account.identity or account.name
    return blake2b(msgspec.json.encode([whose, salt]), digest_size=16).hexdigest()


LOCAL = Account()
"""Everybody on the Unix socket, and on a server without keys."""
