"""How far a client is in an answer that it may have to take up again."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field


def _new_name() -> str:
    return secrets.token_urlsafe(18)


@dataclass
class StreamPosition:
    """A place in one answer; whoever knows its name, and has the same key, can go on there."""

    name: str = field(default_factory=_new_name)
    last: int = 0
    """The number of the last event that came whole; 0 is none."""
    has_begun: bool = False
    """Whether any event came."""
    has_failed: bool = False
    """Whether an event told of an error, after which there is nothing more."""
    grace: float | None = None
    """Seconds that the server keeps the answer after a break; None is a server that does not."""

    @property
    def can_go_on(self) -> bool:
        """Whether an answer that broke here can be had without a part missing or coming twice."""
        return not self.has_failed and (self.grace is not None or not self.has_begun)
