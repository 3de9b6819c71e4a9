"""The layout of the KV cells: one pool that all sequences share, or a stream for each sequence."""

from __future__ import annotations

from dataclasses import dataclass

from llama_backend.wire.ipc import EngineConfig, KVType

_DEFAULT_CONTEXT = 4096
_DEFAULT_SLOTS = 4
_SHARE_OF_MEMORY = 0.25
"""The share of the available memory that KV cells may take."""
_EMBEDDING_BYTES = 256 << 20
"""Bytes that the KV cells for embeddings may take."""
_CELL_STEP = 256
"""llama.cpp rounds the cells of a stream up to a multiple of this."""
_CPU_BATCH, _CPU_UBATCH = 512, 128
"""On two processors, prompts were computed as fast with 64 tokens at once as with 512, which need more memory."""
_GPU_BATCH, _GPU_UBATCH = 2048, 512
"""llama.cpp's own defaults."""


@dataclass(frozen=True)
class KVPlan:
    """The number of slots, the most tokens of one sequence, the cells of all slots, and whether these are one pool."""

    slots: int
    context: int
    cells: int
    unified: bool
    kv_type: KVType = "f16"
    flash_attention: bool = True
    """Used where the device has it. Without it two processors were 15 to 17 % slower with 4 and 8 streams. Quantised
    values need it."""
    batch: int = _CPU_BATCH
    ubatch: int = _CPU_UBATCH


def plan_kv(
    config: EngineConfig, context_trained: int, bytes_per_token: int, memory: int, *, on_gpu: bool = False
) -> KVPlan:
    """The layout if `memory` bytes are available, of main memory or of GPUs.

    Where the number of slots is set, each slot gets its own stream if all streams fit into a quarter of the memory,
    since that decodes 8 to 16 % faster. Otherwise the slots share a pool: with the cells of one context where nothing
    is set, or with as many cells as fit where the streams do not.
    """
    context = _rounded(config.context or min(context_trained, _DEFAULT_CONTEXT))
    slots = config.slots or _DEFAULT_SLOTS
    cells, unified = _layout(config, slots, context, int(memory * _SHARE_OF_MEMORY) // max(bytes_per_token, 1))
    batch = max(config.batch or (_GPU_BATCH if on_gpu else _CPU_BATCH), slots)
    return KVPlan(
        slots,
        context,
        cells,
        unified,
        kv_type=config.kv_type,
        flash_attention=config.flash_attention is not False,
        batch=batch,
        ubatch=min(batch, config.ubatch or (_GPU_UBATCH if on_gpu else _CPU_UBATCH)),
    )


def _layout(config: EngineConfig, slots: int, context: int, affordable: int) -> tuple[int, bool]:
    """The number of cells, and whether they are one pool; `affordable` cells fit into the memory."""
    if config.kv_cells is not None:
        return max(context, _rounded(config.kv_cells)), True
    if config.kv_unified is False or (
        config.kv_unified is None and config.slots is not None and slots * context <= affordable
    ):
        return slots * context, False
    if config.slots is None:
        return context, True
    return max(context, min(slots * context, affordable // _CELL_STEP * _CELL_STEP)), True


def embedding_room(context: int, bytes_per_token: int) -> int:
    """The KV cells for embeddings: those of one context, but at most 256 MiB or 512 cells, whichever is more."""
    affordable = max(512, _EMBEDDING_BYTES // max(bytes_per_token, 1) // _CELL_STEP * _CELL_STEP)
    return min(context, affordable)


def _rounded(context: int) -> int:
    return max(_CELL_STEP, -(-context // _CELL_STEP) * _CELL_STEP)
