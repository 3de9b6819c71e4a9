"""Moments of the history as a person's clock shows them."""

from __future__ import annotations

from datetime import datetime


def local_time(moment: float) -> datetime:
    """Unix seconds in the local time zone; what no calendar has, as after a clock went wild, is its nearest end."""
    try:
        return datetime.fromtimestamp(moment)
    except (OverflowError, ValueError, OSError):
        return datetime.max if moment > 0 else datetime.min
