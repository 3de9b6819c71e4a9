"""The account that a request belongs to, by which the engine is shared."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated

import msgspec
from msgspec import Meta, Struct


class Account(Struct, frozen=True):
    """One user of a server, and how much of it that user may take."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9._@-]{1,64}\Z")] = "local"
    weight: Annotated[float, Meta(gt=0, le=1000)] = 1.0
    """While others wait too, it gets this many times as many tokens as an account of weight 1."""
    max_running: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """Answers that one model may compute for it at the same time; others of its requests wait."""
    requests_per_minute: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    identity: str | None = None
    """Identifies the account where its name does not for good: a key without a name is named by its line in the file.
    It is secret, and not set by hand."""


def scope_of(account: Account, is_shared: bool, salt: str | None) -> str:
    """Names those who may use each other's KV cells: one account, or all where `is_shared`, with the same salt.

    The salt (vLLM's `cache_salt`) is a secret between those who use it, so that the name is a digest.
    """
    whose = None if is_shared else account.identity or account.name
    return blake2b(msgspec.json.encode([whose, salt]), digest_size=16).hexdigest()


LOCAL = Account()
"""The account of everybody on the Unix socket, and on a server without keys."""
