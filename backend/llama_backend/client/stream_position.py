"""How much of an answer a client has received, so that it can continue the answer after a break."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


def _new_name() -> str:
    return secrets.token_urlsafe(18)


@dataclass
class StreamPosition:
    """A position in one answer. A client with the answer's name and the same API key can continue there."""

    name: str = field(default_factory=_new_name)
    last: int = 0
    """The number of the last complete event; 0 means none."""
    has_begun: bool = False
    """Whether any event has come."""
    has_failed: bool = False
    """Whether an error event has come, after which nothing follows."""
    grace: float | None = None
    """Seconds that the server keeps the answer after a break; None where it does not keep it."""

    @property
    def can_go_on(self) -> bool:
        """Whether the answer can be continued here, with nothing lost or repeated."""
        return not self.has_failed and (self.grace is not None or not self.has_begun)
