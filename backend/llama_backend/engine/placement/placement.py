"""Decides once, before an engine is put together, where a model is computed and how its KV cells are laid out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_backend.engine.placement.device import Device
from llama_backend.engine.placement.hardware import available_memory
from llama_backend.engine.placement.kv_plan import KVPlan, plan_kv
from llama_backend.engine.placement.kv_size import KVSize
from llama_backend.wire.ipc import EngineConfig

if TYPE_CHECKING:
    from llama_backend.engine.placement.model_file import ModelFile
    from llama_backend.engine.placement.offload import Offload


@dataclass(frozen=True)
class Placement:
    """The layout of the KV cells, and the layers on GPUs."""

    kv: KVPlan
    offload: Offload | None = None
    """None where no GPU is used."""


def place_on_processor(config: EngineConfig, context_trained: int, sizes: Iterable[KVSize]) -> Placement:
    """A placement in main memory; `sizes` are the KV sizes of the model and of its draft model, if it has one."""
    return Placement(plan_kv(config, context_trained, _bytes_per_token(config, sizes), available_memory()))


def place_on_gpus(config: EngineConfig, devices: Sequence[Device]) -> Placement:
    """A placement on GPUs, by the headers of the models' files alone, since it is needed before anything is loaded.

    Where no layer fits on a GPU, the cells are laid out for main memory. Raises ModelUnreadable.
    """
    # Imported here, since an engine without a GPU does not need it and every import delays the start.
    from llama_backend.engine.placement.model_file import ModelFile

    model = ModelFile(Path(config.path))
    draft = ModelFile(Path(config.draft_model)) if config.draft_model is not None and config.speculation else None
    sizes = [file.kv_size for file in (model, draft) if file is not None]
    used = devices if config.main_gpu is None else [devices[config.main_gpu]]
    memory = sum(device.free for device in used)
    kv = plan_kv(config, model.context_trained, _bytes_per_token(config, sizes), memory, on_gpu=True)
    offload = _offload(config, kv, model, draft, devices)
    if offload.layers == 0:
        kv = place_on_processor(config, model.context_trained, sizes).kv
    return Placement(kv, offload)


def _bytes_per_token(config: EngineConfig, sizes: Iterable[KVSize]) -> int:
    return sum(size.bytes_per_token(config.kv_type) for size in sizes)


def _offload(
    config: EngineConfig, kv: KVPlan, model: ModelFile, draft: ModelFile | None, devices: Sequence[Device]
) -> Offload:
    """The layers on GPUs with these KV cells. The draft model is put on one only if all of both models fit."""
    from llama_backend.engine.placement.offload import ContextSize, plan_offload, with_draft

    shape, size = model.shape(config.kv_type), ContextSize(kv.cells, kv.ubatch, kv.slots)

    def planned(free: Sequence[Device]) -> Offload:
        return plan_offload(shape, size, free, config.gpu_layers, config.tensor_split, config.main_gpu)

    both = with_draft(draft.shape(config.kv_type), size, devices, planned) if draft is not None else None
    return both or planned(devices)
