"""What an engine may report of itself, with the smallest numbers; tests replace those that they are about."""

from __future__ import annotations

from llama_backend.wire.ipc import Ready
from llama_backend.wire.status import TuningStatus

READY = Ready(
    context=16,
    context_trained=16,
    slots=1,
    threads=1,
    gpu_layers=0,
    kv_unified=True,
    description="",
    parameters=1,
    size=1,
)
TUNING = TuningStatus(
    threads=1,
    threads_most=1,
    threads_fixed=True,
    flash_attention=True,
    kv_unified=True,
    kv_type="f16",
    kv_cells=1,
    kv_bytes=1,
    batch=1,
    ubatch=1,
    gpu_layers=1,
    layers=1,
    gpu_layers_fixed=True,
)
