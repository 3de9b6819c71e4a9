"""A line on a terminal while nothing comes yet, as when a large model is loading."""

from __future__ import annotations

import asyncio
import os
import sys
from types import TracebackType
from typing import Self

from llama_chat.backends.tunnel import Stage
from llama_chat.cli.display import output

PATIENCE_SECONDS = 1.0
_TEXT = "waiting for the model …"


class WaitingLine:
    """Shows the line after a second and removes it at the end; a script's standard error stays empty."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._is_shown = False
        self._text = _TEXT

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._show)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_shown:
            output.write_stderr("\r\x1b[K")
            self._is_shown = False

    def set_stage(self, stage: Stage, reason: str) -> None:
        """Says how far the connection to a backend elsewhere is.

        During a first connection without a known problem the backend may be loading the model, so the usual text stays.
        """
        is_usual = stage == "reached" or (stage == "connecting" and not reason)
        self._text = _TEXT if is_usual else f"{stage} …"
        if self._is_shown:
            self._show()

    def _show(self) -> None:
        output.write_stderr(f"\r{self._text}\x1b[K")
        self._is_shown = True
