"""Distinguishes a typed Enter from one in a paste, in terminals without bracketed paste."""

from __future__ import annotations

BURST_SECONDS = 0.008
"""Keys that follow each other faster than this were not typed one by one."""
SETTLE_SECONDS = 0.03
"""How long an Enter at the end of a burst waits for further keys."""


class PasteGuard:
    """Watches the times of keys, in seconds of a monotonic clock.

    An Enter right after another key waits a moment: if another key follows as fast, it was a line end in a paste. The
    last Enter of a paste with several lines is a line end too. A single line that arrives at once with its Enter is
    sent, since slow connections, scripts and dictation deliver lines like that.
    """

    def __init__(self) -> None:
        self._last = float("-inf")
        self._has_line_end = False

    def key(self, now: float) -> bool:
        """Takes the time of a key, Enter or not; returns whether it belongs to one burst with the key before."""
        in_burst = now - self._last <= BURST_SECONDS
        self._last = now
        self._has_line_end = self._has_line_end and in_burst
        return in_burst

    def line_end(self) -> None:
        """Notes that an Enter of this burst was a line end."""
        self._has_line_end = True

    @property
    def is_paste(self) -> bool:
        """Whether this burst has a line end already; then an Enter at its end is another one."""
        return self._has_line_end
