"""How a server starts to listen and ends: signals, draining, and the end after idle time."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import uvicorn

from llama_backend.server.listen.http_protocol import HEAD_SECONDS, BoundedProtocol
from llama_backend.server.listen.sockets import inode_of, remove_socket
from llama_backend.server.listen.tls import Certificate
from llama_backend.server.state import ServerState

_log = logging.getLogger("llama_backend.server")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LINGER_SECONDS = 0.25
"""How long an idle server still serves clients after removing its socket, for those that connected just before."""


class Lifecycle(uvicorn.Server):
    """uvicorn with other signal handlers: the first signal drains, the second ends the server at once."""

    def __init__(self, config: uvicorn.Config, server: ServerState) -> None:
        super().__init__(config)
        self._server = server
        self._inode = inode_of(server.config.socket)
        self._drainer: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts as uvicorn does, but with TLS on TCP only; raises InvalidRequest where its files cannot be used."""
        listening = sockets or []
        config = self._server.config
        if config.tls_cert is None or config.tls_key is None:
            await super().startup(listening)
            return
        context = Certificate(Path(config.tls_cert), Path(config.tls_key)).context
        await super().startup([sock for sock in listening if sock.family == socket.AF_UNIX])
        for sock in listening:
            if sock.family != socket.AF_UNIX:
                self.servers.append(await self._listen(sock, context))

    async def _listen(self, sock: socket.socket, context: ssl.SSLContext) -> asyncio.Server:
        def make_protocol() -> asyncio.Protocol:
            state = self.lifespan.state
            return BoundedProtocol(config=self.config, server_state=self.server_state, app_state=state)

        return await asyncio.get_running_loop().create_server(
            make_protocol, sock=sock, ssl=context, ssl_handshake_timeout=HEAD_SECONDS
        )

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
        if self._server.draining:
            _log.info("%s: ending at once", number.name)
            self.force_exit = self.should_exit = True
            return
        _log.info("%s: draining", number.name)
        self._server.draining = True
        if self._server.config.socket_fd is not None:
            self._remove_socket()
        self._drainer = asyncio.create_task(self._drain(), name="drain")

    async def _drain(self) -> None:
        """Ends the server when the last answer is complete; after `drain` seconds open answers end with an error."""
        admission = self._server.admission
        try:
            async with asyncio.timeout(self._server.config.drain):
                await admission.emptied()
                await self._server.streams.all_read()
        except TimeoutError:
            _log.warning("%d answers were not complete in time and end with an error", admission.inside)
            await self._server.models.stop()
        self.should_exit = True

    async def watch_idle(self, seconds: float) -> None:
        """Ends the server after `seconds` without a request; its socket is removed first, so that no client is lost."""
        while True:
            admission = self._server.admission
            left = admission.last_activity + seconds - monotonic()
            if admission.inside == 0 and left <= 0:
                break
            await asyncio.sleep(max(min(left, 1.0), 0.05))
        _log.info("no request for %.0f s: ending", seconds)
        self._remove_socket()
        await asyncio.sleep(_LINGER_SECONDS)
        self.should_exit = True

    def _remove_socket(self) -> None:
        """Removes the socket's file, so that another server can be started there."""
        remove_socket(self._server.config.socket, self._inode)
