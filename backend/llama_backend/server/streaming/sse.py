"""Server-sent events that do not depend on the answer: heartbeat, error and end."""

from __future__ import annotations

from typing import Any

from llama_backend.wire.api import encode

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": heartbeat\n\n"


def error_event(error: dict[str, Any]) -> bytes:
    """An error, as the last event of a stream."""
    return b"data: " + encode(error) + b"\n\n"
