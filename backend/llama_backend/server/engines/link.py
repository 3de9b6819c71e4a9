"""The engine's process, read and written by the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from llama_backend.crash_notes import Suspects
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.wire.ipc import Command, Event, Frames, decode_event, frame

_log = logging.getLogger("llama_backend.engine")
_LINES_KEPT = 20


class EngineChild:
    """An engine's process as the event loop sees it."""

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._transport: asyncio.Transport | None = None
        self.last_lines: deque[str] = deque(maxlen=_LINES_KEPT)
        """The end of its standard error."""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_status(self) -> str:
        """How the process ended, for a person."""
        return self._process.exit_status

    def suspects(self) -> Suspects:
        """Who was being computed when the process ended."""
        return self._process.suspects()

    async def follow(self, take: Callable[[Event], None]) -> None:
        """Calls `take` with each event; returns when the process has ended or closed its side."""
        loop = asyncio.get_running_loop()
        lines = asyncio.create_task(self._pump_lines())
        self._transport, protocol = await loop.create_connection(
            lambda: _Events(take, self.abort), sock=self._process.sock
        )
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
            self._process.close()
        await asyncio.to_thread(self._process.wait, patience)

    def abort(self) -> None:
        """Kills the process; `follow` returns when it has ended."""
        self._process.abort()

    async def _pump_lines(self) -> None:
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

    def __init__(self, take: Callable[[Event], None], abort: Callable[[], None]) -> None:
        """`abort` ends an engine that says what cannot be understood."""
        self._take = take
        self._abort = abort
        self._frames = Frames()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        try:
            events = [decode_event(payload) for payload in self._frames.feed(data)]
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            _log.error("the engine says what cannot be understood: %s", error)
            self._abort()
            return
        for event in events:
            self._take(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, or 0 where that is not known."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
