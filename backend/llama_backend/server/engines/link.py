"""The connection to one engine: commands to its process, events and log lines from it, until it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import closing

import msgspec

from llama_backend.crash_notes import Suspects
from llama_backend.server.engines.spawn import EngineProcess
from llama_backend.wire.ipc import Command, Event, Frames, decode_event, frame

_log = logging.getLogger("llama_backend.engine")


class EngineLink:
    """An engine's process, read and written by the event loop."""

    def __init__(self, process: EngineProcess) -> None:
        self._process = process
        self._transport: asyncio.Transport | None = None
        self._last_line = ""
        """The last line of its standard error."""
        self._abort_reason: str | None = None

    async def follow(self, take: Callable[[Event], None]) -> None:
        """Calls `take` with each event; returns when the process has ended or closed its side."""
        loop = asyncio.get_running_loop()
        lines = asyncio.create_task(self._pump_lines())
        self._transport, protocol = await loop.create_connection(
            lambda: _Events(take, self._process.abort), sock=self._process.sock
        )
        try:
            await protocol.closed.wait()
            await asyncio.to_thread(self._process.wait)
            await lines
        finally:
            lines.cancel()
            self._transport.close()

    def send(self, command: Command) -> None:
        """Queues a command; it is dropped if the process is gone."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame(command))

    async def stop(self, seconds: float) -> None:
        """Ends the process by closing its socket, and kills it if that takes longer than `seconds`."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._process.close()
        await asyncio.to_thread(self._process.wait, seconds)

    def abort(self, reason: str) -> None:
        """Kills an engine that hangs; `follow` returns when it has ended. Only the first reason is reported."""
        if self._abort_reason is None:
            self._abort_reason = reason
            self._process.abort()

    def death(self) -> tuple[Suspects, str]:
        """The requests that the engine was working on when it ended, and how it ended, as text for messages."""
        return self._process.suspects(), self._ending()

    def _ending(self) -> str:
        if self._abort_reason is not None:
            return f"the engine was ended: {self._abort_reason}"
        ending = f"the engine ended with {self._process.exit_status}"
        return f"{ending}: {self._last_line}" if self._last_line else ending

    async def _pump_lines(self) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._process.stderr)
        with closing(pipe):
            async for line in reader:
                self._last_line = line.decode("utf-8", "replace").rstrip()
                _log.info(self._last_line)


class _Events(asyncio.Protocol):
    """Passes the events of an engine on as they arrive, without a task in between."""

    def __init__(self, take: Callable[[Event], None], abort: Callable[[], None]) -> None:
        """`abort` ends an engine whose messages cannot be decoded."""
        self._take = take
        self._abort = abort
        self._frames = Frames()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        try:
            events = [decode_event(payload) for payload in self._frames.feed(data)]
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            _log.error("a message of the engine cannot be decoded, so the engine is ended: %s", error)
            self._abort()
            return
        for event in events:
            self._take(event)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
