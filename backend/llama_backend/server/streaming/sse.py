"""Events as they stand in a stream."""

from __future__ import annotations

from typing import Any

from llama_backend.wire.api import encode

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": heartbeat\n\n"


def error_event(error: dict[str, Any]) -> bytes:
    """An error in mid-stream; nothing comes after it."""
    return b"data: " + encode(error) + b"\n\n"
