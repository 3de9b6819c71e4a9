from __future__ import annotations

import msgspec
import pytest

from llama_backend.wire.ipc import Cancel, Command, Count, Frames, frame

COMMANDS: list[Command] = [Cancel(1), Count(id=2, prompt="x" * 300), Cancel(3)]
STREAM = b"".join(map(frame, COMMANDS))


@pytest.mark.parametrize("size", [1, 3, 4, 5, 7, 100, len(STREAM)])
def test_frames_come_whole_however_the_bytes_are_cut(size: int) -> None:
    frames = Frames()
    parts = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    payloads = [payload for part in parts for payload in frames.feed(part)]
    assert [frame(command)[4:] for command in COMMANDS] == payloads
    assert msgspec.msgpack.decode(payloads[0], type=Cancel) == COMMANDS[0]


def test_half_a_frame_is_kept_back() -> None:
    assert list(Frames().feed(frame(Cancel(1))[:-1])) == []
