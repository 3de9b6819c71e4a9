"""An engine is made as it was planned."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_backend.crash_notes import CrashNotes
from llama_backend.engine import tuning
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.loading import load
from llama_backend.engine.messages.intake import Channel, Inbox
from llama_backend.engine.placement.device import Device
from llama_backend.wire.ipc import HEADER, EngineConfig, Ready, decode_event
from tests.support.engine.hollow_model import HollowModel

MODEL = HollowModel(head_size=64)
"""1 KiB of keys and values a token."""
DRAFT = HollowModel(feed_forward=8192)
"""A quarter of that, with too many weights to fit on the GPU beside the model."""
GPU = Device("CUDA0", "a GPU that is made up", free=12 << 20, total=12 << 20)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def ready_from(sock: socket.socket) -> Ready:
    with sock.makefile("rb") as file:
        while header := file.read(HEADER.size):
            event = decode_event(file.read(HEADER.unpack(header)[0]))
            if isinstance(event, Ready):
                return event
    raise AssertionError("no model was loaded")


def test_gpus_are_planned_for_the_context_that_is_made(
    tmp_path: Path, ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, llama_log: LlamaLog
) -> None:
    """A build for the processor alone computes the layers itself, but plans and makes all as for a GPU.

    The draft model's cells count as well: 3 MiB hold 2,304 cells of both models, to a multiple of 256.
    """
    monkeypatch.setattr(tuning, "gpu_devices", lambda: [GPU])
    model, draft = MODEL.write(tmp_path / "model.gguf"), DRAFT.write(tmp_path / "draft.gguf")
    config = EngineConfig(path=str(model), draft_model=str(draft), slots=16, context=512, batch=16, threads=1)
    channel = Channel(ends[1])
    load(config, channel, Inbox(), llama_log, CrashNotes())
    ready = ready_from(ends[0])
    assert ready.tuning is not None
    assert (ready.gpu_layers, ready.tuning.kv_cells) == (3, 2304)
    (share,) = ready.tuning.gpus
    assert share.kv == ready.tuning.kv_bytes == 2304 * 1024
