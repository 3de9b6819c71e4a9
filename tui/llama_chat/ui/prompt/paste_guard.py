"""Tells a typed Enter from one that was pasted into a terminal without bracketed paste."""

from __future__ import annotations

BURST_SECONDS = 0.008
"""Keys that come closer than this were not typed one by one."""
SETTLE_SECONDS = 0.03
"""How long an Enter at the end of a burst waits for more to come."""


class PasteGuard:
    """Watches the times of keys, in seconds of a monotonic clock.

    An Enter right after another key waits: where more follows as closely, it was a line end in a paste. The last Enter
    of a paste with several lines is one too. A single line that comes at once together with its Enter is sent: so type
    slow connections, scripts and dictation.
    """

    def __init__(self) -> None:
        self._last = float("-inf")
        self._has_line_end = False

    def key(self, now: float) -> bool:
        """Takes the time of a key, Enter or not; whether it came in one burst with the key before."""
        in_burst = now - self._last <= BURST_SECONDS
        self._last = now
        self._has_line_end = self._has_line_end and in_burst
        return in_burst

    def line_end(self) -> None:
        """An Enter of this burst was a line end."""
        self._has_line_end = True

    @property
    def is_paste(self) -> bool:
        """Whether this burst has a line end already, so that an Enter after which nothing comes is one more."""
        return self._has_line_end
