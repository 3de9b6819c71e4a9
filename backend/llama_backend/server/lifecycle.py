"""A server's life: signals, draining, and the end after idleness."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import uvicorn

from llama_backend.server.backend import Server
from llama_backend.server.sockets import inode_of, remove_socket

_log = logging.getLogger("llama_backend.server")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Lifecycle(uvicorn.Server):
    """uvicorn, with our own signals: the first drains, the second ends at once."""

    def __init__(self, config: uvicorn.Config, server: Server) -> None:
        super().__init__(config)
        self._server = server

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, number: signal.Signals) -> None:
        _log.info("%s: %s", number.name, "ending at once" if self.should_exit else "draining")
        self.force_exit = self.should_exit
        self._server.draining = True
        self.should_exit = True

    async def watch_idle(self, seconds: float, socket_path: str | None) -> None:
        """Ends the server after `seconds` without a request; nobody finds its socket any more before it does."""
        inode = inode_of(socket_path)
        while True:
            admission = self._server.admission
            left = admission.last_activity + seconds - monotonic()
            if admission.inside == 0 and left <= 0:
                break
            await asyncio.sleep(max(min(left, 1.0), 0.05))
        _log.info("no request for %.0f s: ending", seconds)
        remove_socket(socket_path, inode)
        self._server.draining = True
        self.should_exit = True
