"""Whether an answer whose connection broke is requested again, and for how long that is tried."""

from __future__ import annotations

from collections.abc import Callable

from llama_backend.client.stream_position import StreamPosition
from llama_backend.errors import BackendError, ConnectionLost, NotFound, PodPending, Unavailable, Unreachable
from llama_chat.backends.backoff import Backoff

RESUMABLE_ERRORS = (Unreachable, Unavailable, NotFound)
"""Errors after which `Resume.wait` decides; every other error ends the answer."""

_MARGIN_SECONDS = 10.0
"""Added to the time for which the server keeps an answer: its clock starts only when it notices the break."""
_POD_SECONDS = 300.0
"""How long a pod may take to be scheduled and to start."""


class Resume:
    """Decides for one answer what happens after an error.

    An answer that the server keeps (`StreamPosition.grace`) is continued where it broke. With other servers the
    request is sent again only while nothing of the answer has arrived, so that no text is lost or repeated.
    """

    def __init__(self, position: StreamPosition) -> None:
        self._position = position
        self._backoff = Backoff()

    def received(self) -> bool:
        """Notes that a part of the answer has arrived; returns whether that ended a break."""
        was_retrying = self._backoff.is_retrying
        self._backoff.succeed()
        return was_retrying

    async def wait(self, error: BackendError, was_reached: bool, on_retry: Callable[[BackendError], None]) -> None:
        """Calls `on_retry` and waits before the next attempt; raises where another attempt cannot help.

        `was_reached` is whether the backend has answered anything since the program started.
        """
        if self._position.last and isinstance(error, NotFound):
            raise ConnectionLost("the connection broke, and the backend no longer has the answer") from error
        if not self._can_resume(error, was_reached):
            raise error
        self._backoff.patience = self._patience(error)
        on_retry(error)
        await self._backoff.pause(error)

    def _can_resume(self, error: BackendError, was_reached: bool) -> bool:
        if not self._position.can_go_on or self._position.has_begun:
            return self._position.can_go_on
        if isinstance(error, ConnectionLost | PodPending):
            return True
        return was_reached and isinstance(error, Unreachable)

    def _patience(self, error: BackendError) -> float:
        """Seconds from the break until the error is raised."""
        if isinstance(error, PodPending):
            return _POD_SECONDS
        if self._position.grace is not None:
            return self._position.grace + _MARGIN_SECONDS
        return self._backoff.patience
