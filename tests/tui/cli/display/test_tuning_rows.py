"""What `status` says about threads, memory and GPUs."""

from __future__ import annotations

from msgspec.structs import replace

from llama_backend.wire.status import GPUShare, TuningStatus
from llama_chat.cli.display.tuning_rows import tuning_rows

CHOSEN = TuningStatus(
    threads=1,
    threads_most=2,
    threads_fixed=False,
    thread_changes=3,
    flash_attention=True,
    kv_unified=True,
    kv_type="q8_0",
    kv_cells=4096,
    kv_bytes=50_135_040,
    batch=512,
    ubatch=128,
    gpu_layers=0,
    layers=31,
    gpu_layers_fixed=False,
)
GPU = GPUShare(
    name="CUDA0",
    description="a GPU",
    layers=20,
    weights=2_000_000_000,
    kv=100_000_000,
    compute=50_000_000,
    free=8_000_000_000,
)


def test_what_was_chosen() -> None:
    assert tuning_rows(CHOSEN) == {
        "threads": "1 of 2, chosen automatically, changed 3 times",
        "batch": "at most 512 tokens, 128 at once, flash attention on",
        "KV cells": "4096 of q8_0: 50.1 MB, one pool",
        "GPU layers": None,
        "draft model": None,
    }


def test_a_draft_model_takes_memory() -> None:
    rows = tuning_rows(replace(CHOSEN, draft_model="/models/small.gguf", draft_bytes=150_000_000))
    assert rows["draft model"] == "/models/small.gguf: 150 MB"


def test_what_was_set_by_hand() -> None:
    by_hand = replace(CHOSEN, threads_fixed=True, flash_attention=False, kv_unified=False)
    rows = tuning_rows(by_hand)
    assert rows["threads"] == "1, set by hand"
    assert rows["batch"] == "at most 512 tokens, 128 at once, flash attention off"
    assert rows["KV cells"] == "4096 of q8_0: 50.1 MB, each slot's own"


def test_gpus() -> None:
    rows = tuning_rows(replace(CHOSEN, gpus=[GPU], gpu_layers=20))
    assert rows["GPU layers"] == "20 of 31, chosen automatically"
    assert rows["CUDA0"] == "a GPU: 20 layers, weights 2.0 GB, KV 100 MB, computing 50 MB, of 8.0 GB free"
    assert tuning_rows(replace(CHOSEN, gpus=[GPU], gpu_layers_fixed=True))["GPU layers"] == "0 of 31, set by hand"
