"""How the KV cells are laid out: one pool that all sequences share, or a stream of its own for each."""

from __future__ import annotations

from dataclasses import dataclass

from llama_backend.wire.ipc import EngineConfig, KVType

_DEFAULT_CONTEXT = 4096
_DEFAULT_SLOTS = 4
_SHARE_OF_MEMORY = 0.25
_EMBEDDING_BYTES = 256 << 20
_CELL_STEP = 256
"""llama.cpp rounds the context of a stream up to this."""
_CPU_BATCH, _CPU_UBATCH = 512, 128
"""On two processors prompts were as quick with 64 as with 512 tokens at once, which takes four times the memory."""
_GPU_BATCH, _GPU_UBATCH = 2048, 512
"""llama.cpp's own."""


@dataclass(frozen=True)
class KVPlan:
    """Slots, the tokens of one sequence, the cells of all, and whether they are one pool."""

    slots: int
    context: int
    cells: int
    unified: bool
    kv_type: KVType = "f16"
    flash_attention: bool = True
    """Wanted where the device has it. Without it two processors were 15 to 17 % slower with 4 and 8 streams; quantised
    values need it."""
    batch: int = _CPU_BATCH
    ubatch: int = _CPU_UBATCH


def plan_kv(
    config: EngineConfig, context_trained: int, bytes_per_token: int, memory: int, *, on_gpu: bool = False
) -> KVPlan:
    """The layout for a model on a machine, or on GPUs, with `memory` bytes available.

    Where the number of slots is asked for, each gets its own stream if all fit into a quarter of the
    memory: that is 8 to 16 % faster at decoding. Otherwise the slots share a pool: of one context where
    nothing was asked for, of as much as fits where less than all does.
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
    """Cells, and whether they are one pool, where `affordable` cells may be taken."""
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
    """Cells for texts that are embedded: of one context, or of as much as 256 MiB hold, but of 512 tokens at least."""
    affordable = max(512, _EMBEDDING_BYTES // max(bytes_per_token, 1) // _CELL_STEP * _CELL_STEP)
    return min(context, affordable)


def _rounded(context: int) -> int:
    return max(_CELL_STEP, -(-context // _CELL_STEP) * _CELL_STEP)
