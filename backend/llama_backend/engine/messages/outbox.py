"""Sends the outputs of steps: at once, or while a GPU computes the next step."""

from __future__ import annotations

from collections.abc import Callable

from llama_backend.wire.ipc import StepDone


class Outbox:
    """Sends the outputs of steps in their order.

    With `overlaps`, the outputs of a step are sent while a GPU computes the next one.
    """

    def __init__(self, send: Callable[[StepDone], None], *, overlaps: bool) -> None:
        self._send = send
        self._overlaps = overlaps
        self._held: StepDone | None = None

    def put(self, done: StepDone, *, is_last: bool) -> None:
        """Takes the outputs of a step; `is_last` says that no other step follows soon."""
        self.flush()
        if self._overlaps and not is_last:
            self._held = done
        else:
            self._send(done)

    def flush(self) -> None:
        """Sends the outputs that are held back."""
        held, self._held = self._held, None
        if held is not None:
            self._send(held)
