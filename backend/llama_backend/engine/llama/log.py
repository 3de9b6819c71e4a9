"""llama.cpp's log: kept away from the terminal; the last warnings and errors are kept to explain failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from llama_backend.engine.llama.binding import lib

_LINES_KEPT = 50
_WARNING = 3
"""GGML_LOG_LEVEL_WARN."""
_CONTINUED = 5
"""GGML_LOG_LEVEL_CONT: the text continues the one before it."""


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
        """Makes llama.cpp send its log here from now on."""
        lib.llama_log_set(self._callback, None)

    @property
    def reason(self) -> str:
        """The line that explains a failure best: the first error, or else the first warning, or nothing."""
        errors = [line for line in self.lines if "error" in line.lower()]
        return (errors or list(self.lines) or [""])[0]

    def take(self, level: int, text: bytes, _data: object = None) -> None:
        """Takes one message of llama.cpp, which may be a part of a line or several lines."""
        self._level = level if level != _CONTINUED else self._level
        self._partial += text.decode("utf-8", "replace")
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            if self._level >= _WARNING and line.strip():
                self.lines.append(line.strip())
                self._sink(line)
