"""Numbers as a person reads them."""

from __future__ import annotations

from llama_chat.local_time import local_time


def size_text(size: float) -> str:
    """Bytes with a decimal unit: 92.1 MB."""
    for unit in ("B", "kB", "MB"):
        if size < 999.95:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def duration_text(seconds: float) -> str:
    """Seconds as `5 s`, `3 min` or `2 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def time_text(moment: float) -> str:
    """Unix seconds in the local time zone, to the minute."""
    return f"{local_time(moment):%Y-%m-%d %H:%M}"
