"""What a conversion would take, before anything is fetched or written."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from llama_convert.machine import core_count, memory_bytes
from llama_convert.model.llama_config import LlamaConfig
from llama_convert.output.sizes import QuantizedSize, quantized_sizes, unquantized_size
from llama_convert.output.write_model import Layout
from llama_convert.quant.file_types import Quantization

_RUN_CONTEXT = 4096
_RUN_BATCH = 512
_HEADROOM = 64 << 20


@dataclass(frozen=True, slots=True)
class PlannedModel:
    """One file that would be made: its size, the memory to run it, the seconds to quantise it on this machine."""

    quantization: str
    nbytes: int
    bits_per_weight: float
    fallbacks: dict[str, int]
    run_memory: int
    seconds: float
    advice: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes to fetch and to write, what is free, and the models that would come out."""

    name: str
    dtype: str
    fetch_bytes: int
    unquantized_bytes: int
    disk_needed: int
    disk_free: int
    memory: int
    context: int
    models: Sequence[PlannedModel]

    @property
    def fits_disk(self) -> bool:
        return self.disk_needed <= self.disk_free

    def quantized_bytes(self, kinds: Collection[str]) -> int:
        """Bytes that the models of these quantisations take on the disk."""
        return sum(model.nbytes for model in self.models if model.quantization in kinds)

    def fits_memory(self, model: PlannedModel) -> bool:
        return model.run_memory <= self.memory

    def to_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        models = [
            {name: getattr(model, name) for name in PlannedModel.__slots__} | {"fits": self.fits_memory(model)}
            for model in self.models
        ]
        names = [name for name in Plan.__slots__ if name != "models"]
        return {name: getattr(self, name) for name in names} | {"fits_disk": self.fits_disk, "models": models}


def make_plan(
    name: str,
    config: LlamaConfig,
    layout: Layout,
    quantizations: list[Quantization],
    *,
    fetch_bytes: int,
    disk_free: int,
    keeps_original: bool,
) -> Plan:
    """The plan for a checkpoint whose file would have this layout.

    The unquantised file is needed on the disk beside the quantised ones until they are made.
    """
    original = unquantized_size(layout)
    sizes = quantized_sizes(layout, quantizations) if quantizations else []
    weights = sum(tensor.elements for tensor in layout.tensors)
    models = [_planned(config, size, weights) for size in sizes]
    if keeps_original:
        memory = run_memory(config, original)
        bits = 8 * original / weights
        models.append(PlannedModel(layout.dtype.name, original, bits, {}, memory, 0.0, "not quantised"))
    return Plan(
        name=name,
        dtype=layout.dtype.name,
        fetch_bytes=fetch_bytes,
        unquantized_bytes=original,
        disk_needed=fetch_bytes + original + sum(size.nbytes for size in sizes),
        disk_free=disk_free,
        memory=memory_bytes(),
        context=min(config.context_length, _RUN_CONTEXT),
        models=models,
    )


def _planned(config: LlamaConfig, size: QuantizedSize, weights: int) -> PlannedModel:
    kind = size.quantization
    seconds = weights / 1e6 / kind.speed / core_count()
    memory = run_memory(config, size.nbytes)
    return PlannedModel(kind.name, size.nbytes, size.bits_per_weight, size.fallbacks, memory, seconds, kind.advice)


def run_memory(config: LlamaConfig, nbytes: int) -> int:
    """Bytes of memory to run a model file of `nbytes`.

    These are the weights, the keys and values of one conversation of up to 4,096 tokens, and the buffers of one batch.
    """
    context = min(config.context_length, _RUN_CONTEXT)
    cache = config.kv_bytes_per_token * context
    batch = 4 * _RUN_BATCH * (config.vocab_size + 2 * config.feed_forward_length + 8 * config.embedding_length)
    return nbytes + cache + batch + _HEADROOM
