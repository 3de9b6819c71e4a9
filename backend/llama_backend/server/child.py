"""The engine's process, as the server holds it: started at once, read and written by the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from llama_backend.guard import GuardPage, Suspects
from llama_backend.ipc import Command, EngineConfig, Event, Frames, decode_event, frame

_log = logging.getLogger("llama_backend.engine")
_LINES_KEPT = 20


class EngineChild:
    """One engine process."""

    def __init__(self, config: EngineConfig) -> None:
        self._guard = GuardPage()
        self._sock, theirs = socket.socketpair()
        with theirs, self._guard as notes:
            arguments = [msgspec.json.encode(config).decode(), str(theirs.fileno()), str(notes)]
            self._process = subprocess.Popen(
                [sys.executable, "-m", config.module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno(), notes],
            )
        self._transport: asyncio.Transport | None = None
        self.last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        """The end of its standard error."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> str:
        """How the process ended, for a person."""
        code = self._process.poll()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def suspects(self) -> Suspects:
        """Who was being computed when the process ended."""
        return self._guard.suspects()

    async def follow(self, take: Callable[[Event], None]) -> None:
        """Calls `take` with each event; returns when the process has ended or closed its side."""
        loop = asyncio.get_running_loop()
        lines = asyncio.create_task(self._pump_lines())
        self._transport, protocol = await loop.create_connection(lambda: _Events(take), sock=self._sock)
        try:
            await protocol.closed.wait()
            await asyncio.to_thread(self._process.wait)
            await lines
        finally:
            lines.cancel()
            self._transport.close()

    def send(self, command: Command) -> None:
        """Queues a command; one for a process that is gone is dropped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(command))

    async def kill(self, patience: float) -> None:
        """Ends the process; it has `patience` seconds to do so by itself."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._close()
        try:
            await asyncio.to_thread(self._process.wait, patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def end(self) -> None:
        """Kills the process, where no event loop is left to do it kindly."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _close(self) -> None:
        """Closes what `follow` would have taken over."""
        self._sock.close()
        if self._process.stderr is not None:
            self._process.stderr.close()

    async def _pump_lines(self) -> None:
        assert self._process.stderr is not None
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._process.stderr)
        with closing(pipe):
            async for line in reader:
                text = line.decode("utf-8", "replace").rstrip()
                self.last_lines.append(text)
                _log.info(text)


class _Events(asyncio.Protocol):
    """Hands on the events of an engine as they come, without a task in between."""

    def __init__(self, take: Callable[[Event], None]) -> None:
        self._take = take
        self._frames = Frames()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        for payload in self._frames.feed(data):
            self._take(decode_event(payload))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, or 0 where that is not known."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
