"""Times of the history in the local time zone."""

from __future__ import annotations

from datetime import datetime


def local_time(moment: float) -> datetime:
    """Unix seconds in the local time zone; times that the calendar does not have become its first or last time."""
    try:
        return datetime.fromtimestamp(moment)
    except (OverflowError, ValueError, OSError):
        return datetime.max if moment > 0 else datetime.min
