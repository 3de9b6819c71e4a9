"""llama.cpp's log lines: none reaches a terminal, and those that say why something failed are kept."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from llama_backend.engine.llama.binding import lib

_LINES_KEPT = 50
_WARNING = 3
"""GGML_LOG_LEVEL_WARN."""
_CONTINUED = 5
"""GGML_LOG_LEVEL_CONT: the text goes on where the one before it ended."""


class LlamaLog:
    """Receives llama.cpp's log. Warnings and errors go to `sink` line by line, and the last ones are kept."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self.lines: deque[str] = deque(maxlen=_LINES_KEPT)
        """The last lines of level warning and above."""
        self._sink = sink
        self._level = 0
        self._partial = ""
        self._callback = lib.llama_log_callback(self.take)
        self.install()

    def install(self) -> None:
        """Receives the log in place of the one that did so before."""
        lib.llama_log_set(self._callback, None)

    @property
    def reason(self) -> str:
        """The line that says best why llama.cpp failed: the first error, or else the first warning, or nothing."""
        errors = [line for line in self.lines if "error" in line.lower()]
        return (errors or list(self.lines) or [""])[0]

    def take(self, level: int, text: bytes, _data: object = None) -> None:
        """One message of llama.cpp's, which may be a part of a line, or several lines."""
        self._level = level if level != _CONTINUED else self._level
        self._partial += text.decode("utf-8", "replace")
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            if self._level >= _WARNING and line.strip():
                self.lines.append(line.strip())
                self._sink(line)
