"""Files of KV states that somebody else has written, or that a disk has spoiled."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from struct import pack
from zlib import crc32

import msgspec
from hypothesis import strategies as st

from llama_backend.engine.kv.state_files import DamagedState, StateFolder
from llama_backend.engine.kv.state_store import StateStore
from tests.hostile.mutation import mutated
from tests.hostile.trial import Check, Trial
from tests.support.engine.builders import prompts_of
from tests.support.engine.fakes import N_VOCAB, fake_vocab

_STAMP = "0" * 32
_token = st.integers(0, N_VOCAB - 1) | st.integers(-(2**31), 2**31 - 1)
_tokens = st.lists(_token, max_size=20).map(lambda ids: array("i", ids).tobytes()) | st.binary(max_size=30)
_answers = st.lists(st.tuples(st.lists(_token, max_size=5), st.booleans()), max_size=3)
_anything = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=10,
)


def state_file(header: object, state: bytes, magic: bytes = b"LCKV0002") -> bytes:
    """A file as it is written, with whatever header, and with the right checksum of that."""
    packed = msgspec.msgpack.encode(header)
    return pack("<8sII", magic, len(packed), crc32(packed)) + packed + state


@st.composite
def _files(draw: st.DrawFn) -> bytes:
    state = draw(st.binary(max_size=40))
    size = draw(st.just(len(state)) | st.integers(-1, 2**63))
    header = [draw(_tokens), draw(st.text(max_size=5)), draw(_answers), size, crc32(state)]
    return state_file(draw(st.just(header) | _anything), state)


@contextmanager
def _store(folder: Path) -> Iterator[Check]:
    """What an engine does with the file at its start, and for a prompt that it may belong to."""
    root = folder / "states"
    (root / _STAMP).mkdir(parents=True, exist_ok=True)
    path = root / _STAMP / "a.kvstate"

    def check(case: bytes) -> None:
        path.write_bytes(case)
        states = StateFolder(root, _STAMP, 1 << 20, N_VOCAB)
        store, prompts = StateStore(states, 1 << 20, lambda tokens, scope: []), prompts_of(fake_vocab(), None)
        for file in states.scan():
            prompts.recall(file.answers, file.scope)
            assert all(0 <= token < N_VOCAB for token in array("i", file.tokens))
        store.open()
        match = store.find([1, 2, 3], "")
        data = store.fetch(match.state) if match else None
        assert data is None or case.endswith(bytes(data))
        store.close(5)
        with suppress(DamagedState, OSError):
            states.read(path)

    yield check


KV_STATES = Trial("kv-states", st.binary(max_size=80) | _files() | mutated(_files()), _store, examples=300)
