"""A proxy that breaks connections: it delays, splits, cuts and resets them at random, as its seed decides."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER without time: closing sends RST, and bytes that are still on their way are lost."""


class FlakyProxy:
    """Listens on TCP in front of a backend; a context manager. `broken` counts the connections that it has cut."""

    def __init__(self, target: str, seed: int, health: float = 0.2) -> None:
        """`target` is the path of a Unix socket; `health` is the part of the connections that is not cut, 0 to 1."""
        self._target = target
        self._random = random.Random(seed)
        self._health = health
        self._tasks = set[asyncio.Task[None]]()
        self.broken = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        far_reader, far_writer = await asyncio.open_unix_connection(self._target)
        directions = [
            asyncio.create_task(self._carry(reader, far_writer, self._limit(200, 800))),
            asyncio.create_task(self._carry(far_reader, writer, self._limit(0, 4000))),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for side in (writer, far_writer):
                self._end(side)

    def _limit(self, least: int, most: int) -> int | None:
        """After how many bytes a connection is cut; None means never."""
        return None if self._random.random() < self._health else self._random.randint(least, most)

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, limit: int | None) -> None:
        """Passes on bytes in parts of random size until one side ends or the limit is reached."""
        carried = 0
        with suppress(ConnectionError):
            while data := await source.read(self._random.randint(1, 600)):
                if self._random.random() < 0.1:
                    await asyncio.sleep(self._random.random() * 0.02)
                if limit is not None and carried + len(data) > limit:
                    sink.write(data[: limit - carried])
                    self.broken += 1
                    return
                carried += len(data)
                sink.write(data)
                await sink.drain()

    def _end(self, writer: asyncio.StreamWriter) -> None:
        sock: socket.socket = writer.get_extra_info("socket")
        if self._random.random() < 0.5:
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.close()
