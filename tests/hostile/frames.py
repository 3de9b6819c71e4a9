"""What a process that was taken over might say to the server: it is understood, or the process is done with."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from hypothesis import strategies as st

from llama_backend.wire.ipc import (
    MAX_FRAME,
    Accepted,
    Counted,
    Frames,
    Loading,
    SequenceOutput,
    StepDone,
    decode_event,
    frame,
)
from tests.hostile.trial import Check, Trial

_PIECE = 64 * 1024
_EVENTS = st.sampled_from(
    [
        frame(Loading(0.5)),
        frame(Accepted(1, 2)),
        frame(Counted(id=1, count=2, context=3, tokens=[1, 2])),
        frame(StepDone(outputs=[SequenceOutput(1, "é")], running=1, waiting=0)),
    ]
)
_HEADERS = st.one_of(
    st.integers(0, 2**32 - 1), st.sampled_from([0, MAX_FRAME, MAX_FRAME + 1, 2**31]), st.integers(0, 40)
).map(lambda size: struct.pack("<I", size))
_NESTED = (
    st.integers(1, 100_000).map(lambda depth: b"\x91" * depth).map(lambda data: struct.pack("<I", len(data)) + data)
)


def _changed(parts: tuple[bytes, int, bytes]) -> bytes:
    data, place, other = parts
    place %= len(data)
    return data[:place] + other + data[place + len(other) :]


def _cases() -> st.SearchStrategy[bytes]:
    changed = st.tuples(_EVENTS, st.integers(0, 1000), st.binary(min_size=1, max_size=3)).map(_changed)
    return st.lists(st.one_of(_EVENTS, changed, _HEADERS, _NESTED, st.binary(max_size=40)), max_size=8).map(b"".join)


@contextmanager
def _opened(_: Path) -> Iterator[Check]:
    yield _check


def _check(case: bytes) -> None:
    """All of it, and then as much again as no frame may have: nothing that long is waited for."""
    frames = Frames()
    try:
        for data in (case, *[bytes(_PIECE)] * 4):
            for payload in frames.feed(data):
                decode_event(payload)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return
    assert frames.wanted <= MAX_FRAME


FRAMES = Trial("frames", _cases(), _opened, examples=300, known=(b"\x00\x00\x01\x00\x81\xa4type\xa1\x80",))
