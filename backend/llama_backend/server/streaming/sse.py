"""The events of every stream that do not depend on the answer, as bytes."""

from __future__ import annotations

from typing import Any

from llama_backend.wire.api import encode

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": heartbeat\n\n"


def error_event(error: dict[str, Any]) -> bytes:
    """An error in the middle of a stream, as its last event."""
    return b"data: " + encode(error) + b"\n\n"
