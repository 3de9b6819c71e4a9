"""The worker's end of the pipe to its parent."""

from __future__ import annotations

from typing import BinaryIO

from llama_convert.worker.messages import Event, Progressed, encode_line


class Channel:
    """Sends events to the parent, one a line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def progress(self, done: int, total: int) -> None:
        """Reports that `done` of `total` bytes or windows are finished."""
        self.send(Progressed(done, total))

    def send(self, event: Event) -> None:
        """Sends one event at once."""
        self._stream.write(encode_line(event))
        self._stream.flush()
