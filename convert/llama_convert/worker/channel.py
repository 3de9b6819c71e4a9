"""What a worker tells its parent: one JSON object a line, progress first, a result or an error at the end."""

from __future__ import annotations

import json
from typing import Any, TextIO


class Channel:
    """The worker's end of the pipe."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` bytes are worked off."""
        self._send(event="progress", done=done, total=total)

    def warn(self, text: str) -> None:
        self._send(event="warning", text=text)

    def result(self, value: dict[str, Any]) -> None:
        self._send(event="result", value=value)

    def error(self, kind: str, text: str) -> None:
        """The task failed; `kind` is the name of a class in `llama_convert.errors`."""
        self._send(event="error", kind=kind, text=text)

    def _send(self, **message: Any) -> None:
        self._stream.write(json.dumps(message) + "\n")
        self._stream.flush()
