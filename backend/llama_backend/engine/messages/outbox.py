"""When the outputs of a step are sent: at once, or while a GPU computes the next step."""

from __future__ import annotations

from collections.abc import Callable

from llama_backend.wire.ipc import StepDone


class Outbox:
    """Delivers the outputs of steps in their order.

    Where a GPU computes (`overlaps`), a step's message is written while the next one is computed.
    """

    def __init__(self, send: Callable[[StepDone], None], *, overlaps: bool) -> None:
        self._send = send
        self._overlaps = overlaps
        self._held: StepDone | None = None

    def put(self, done: StepDone, *, is_last: bool) -> None:
        """Takes over the outputs of a step; `is_last` is whether no other step follows soon."""
        self.flush()
        if self._overlaps and not is_last:
            self._held = done
        else:
            self._send(done)

    def flush(self) -> None:
        """Sends what is held back."""
        held, self._held = self._held, None
        if held is not None:
            self._send(held)
