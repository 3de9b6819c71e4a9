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
    """While other accounts wait too, this one gets so many times the tokens of an account of weight 1."""
    max_running: Annotated[int, Meta(ge=1, le=65_536)] | None = None
    """Most answers that one model computes for the account at the same time; its further requests wait."""
    requests_per_minute: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    identity: str | None = None
    """Identifies an account whose key has no name: `name` is then the key's line in the file, which may change. It is
    made from the key, so it is secret, and it is never set by hand."""


def scope_of(account: Account, is_shared: bool, salt: str | None) -> str:
    """The scope of a request: requests with the same scope may use each other's KV cells.

    These are the requests of one account, or of all accounts where `is_shared`, that have the same salt (vLLM's
    `cache_salt`). The scope is a digest, since the salt is a secret of the clients that use it.
    """
    owner = None if is_shared else account.identity or account.name
    return blake2b(msgspec.json.encode([owner, salt]), digest_size=16).hexdigest()


LOCAL = Account()
"""The account of all requests over the Unix socket, and of all requests to a server without keys."""
