"""How a long task reports its progress."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A listener. One stage is open at a time; amounts are bytes."""

    def start(self, stage: str, total: int) -> None:
        """A stage begins; `total` is 0 where it is not known."""

    def advance(self, done: int) -> None:
        """`done` bytes of the open stage are finished."""

    def finish(self) -> None:
        """The open stage is complete."""

    def warn(self, text: str) -> None:
        """A warning for the user."""


class Silent:
    """A listener that does nothing."""

    def start(self, stage: str, total: int) -> None: ...

    def advance(self, done: int) -> None: ...

    def finish(self) -> None: ...

    def warn(self, text: str) -> None: ...
