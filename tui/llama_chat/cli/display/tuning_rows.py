"""How a backend computes, as rows of `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_chat.cli.display.units import size_text

if TYPE_CHECKING:
    from llama_backend.wire.status import GPUShare, TuningStatus


def tuning_rows(tuning: TuningStatus) -> dict[str, object]:
    """The rows of `status` about threads, memory and GPUs."""
    return {
        "threads": _threads(tuning),
        "batch": f"at most {tuning.batch} tokens, {tuning.ubatch} at once, flash attention "
        + ("on" if tuning.flash_attention else "off"),
        "KV cells": f"{tuning.kv_cells} of {tuning.kv_type}: {size_text(tuning.kv_bytes)}, "
        + ("one pool" if tuning.kv_unified else "each slot's own"),
        "GPU layers": f"{tuning.gpu_layers} of {tuning.layers}, {_source(tuning.gpu_layers_fixed)}"
        if tuning.gpus
        else None,
        **{gpu.name: _gpu(gpu) for gpu in tuning.gpus},
        "draft model": f"{tuning.draft_model}: {size_text(tuning.draft_bytes)}" if tuning.draft_model else None,
    }


def _threads(tuning: TuningStatus) -> str:
    if tuning.threads_fixed:
        return f"{tuning.threads}, set by hand"
    changes = f", changed {tuning.thread_changes} times" if tuning.thread_changes else ""
    return f"{tuning.threads} of {tuning.threads_most}, chosen automatically{changes}"


def _source(is_fixed: bool) -> str:
    return "set by hand" if is_fixed else "chosen automatically"


def _gpu(gpu: GPUShare) -> str:
    parts = f"weights {size_text(gpu.weights)}, KV {size_text(gpu.kv)}, computing {size_text(gpu.compute)}"
    return f"{gpu.description}: {gpu.layers} layers, {parts}, of {size_text(gpu.free)} free"
