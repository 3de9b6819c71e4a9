"""An engine is made as it was planned."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import msgspec

from llama_backend.wire.ipc import HEADER, EngineConfig, Ready, decode_event
from tests.support.engine.hollow_model import HollowModel

MODEL = HollowModel(head_size=64)
"""1 KiB of keys and values a token."""
DRAFT = HollowModel(feed_forward=8192)
"""A quarter of that, with too many weights to fit on the GPU beside the model."""
GPU_BYTES = 12 << 20
SECONDS = 30.0


def ready_on_gpu(config: EngineConfig) -> Ready:
    """What an engine says that believes it has a GPU."""
    ours, theirs = socket.socketpair()
    ours.settimeout(SECONDS)
    module, text = "tests.support.engine.engine_with_gpu", msgspec.json.encode(config).decode()
    with ours, ours.makefile("rb") as file:
        with theirs:
            command = [sys.executable, "-m", module, str(GPU_BYTES), text, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL)
        try:
            while header := file.read(HEADER.size):
                event = decode_event(file.read(HEADER.unpack(header)[0]))
                if isinstance(event, Ready):
                    return event
        finally:
            process.kill()
            process.wait()
    raise AssertionError("the engine ended")


def test_gpus_are_planned_for_the_context_that_is_made(tmp_path: Path) -> None:
    """The draft model's cells count as well: 3 MiB hold 2,304 cells of both models, to a multiple of 256."""
    model, draft = MODEL.write(tmp_path / "model.gguf"), DRAFT.write(tmp_path / "draft.gguf")
    config = EngineConfig(path=str(model), draft_model=str(draft), slots=16, context=512, batch=16, threads=1)
    ready = ready_on_gpu(config)
    assert ready.tuning is not None
    assert (ready.gpu_layers, ready.tuning.kv_cells) == (3, 2304)
    (share,) = ready.tuning.gpus
    assert share.kv == ready.tuning.kv_bytes == 2304 * 1024
