"""The engine's process, as the server holds it: started at once, read and written by the event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec

from llama_backend.guard import GuardPage, Suspects
from llama_backend.ipc import HEADER, Command, EngineConfig, Event, decode_event, frame

_log = logging.getLogger("llama_backend.engine")
_LINES_KEPT = 20


class EngineChild:
    """One engine process. `events` ends when the process has ended or closed its side."""

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
        self._writer: asyncio.StreamWriter | None = None
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

    async def events(self) -> AsyncIterator[Event]:
        reader, self._writer = await asyncio.open_connection(sock=self._sock)
        lines = asyncio.create_task(self._pump_lines())
        try:
            while True:
                (size,) = HEADER.unpack(await reader.readexactly(HEADER.size))
                yield decode_event(await reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            await asyncio.to_thread(self._process.wait)
            await lines
        finally:
            lines.cancel()
            self._writer.close()

    def send(self, command: Command) -> None:
        """Queues a command; one for a process that is gone is dropped."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(frame(command))

    async def kill(self, patience: float) -> None:
        """Ends the process; it has `patience` seconds to do so by itself."""
        if self._writer is not None:
            self._writer.close()
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
        """Closes what `events` would have taken over."""
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


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, or 0 where that is not known."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0
