"""How an engine computes: what is chosen before the model is loaded, and while it works."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llama_backend.engine.llama.devices import gpu_devices, usable
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.placement.hardware import IdleProcessors, available_memory, default_threads
from llama_backend.engine.placement.kv_plan import KVPlan, plan_kv
from llama_backend.engine.placement.thread_tuner import ThreadTuner
from llama_backend.wire.ipc import EngineConfig
from llama_backend.wire.status import GPUShare, TuningStatus

if TYPE_CHECKING:
    from llama_backend.engine.placement.offload import Offload, Share


def plan_gpus(config: EngineConfig) -> Offload | None:
    """Which layers go to GPUs; None where there is none, or none is wanted.

    Raises DeviceUnavailable where one was asked for that is not there, and ModelUnreadable.
    """
    devices = gpu_devices()
    if not usable(devices, config.gpu_layers, config.tensor_split, config.main_gpu):
        return None
    # Only where there is a GPU, since an answer waits for all that is imported.
    from llama_backend.engine.placement.model_file import ModelFile
    from llama_backend.engine.placement.offload import ContextSize, plan_offload, with_draft

    file, kv_type = ModelFile(Path(config.path)), config.kv_type
    free = sum(device.free for device in devices)
    plan = plan_kv(config, file.context_trained, file.kv_bytes_per_token(kv_type), free, on_gpu=True)
    size = ContextSize(plan.cells, plan.ubatch, plan.slots)
    wanted = (config.gpu_layers, config.tensor_split, config.main_gpu)
    offload = plan_offload(file.shape(kv_type), size, devices, *wanted)
    if config.draft_model is None or not config.speculation:
        return offload
    draft = ModelFile(Path(config.draft_model)).shape(kv_type)
    return (
        with_draft(draft, size, devices, lambda left: plan_offload(file.shape(kv_type), size, left, *wanted)) or offload
    )


def plan_context(config: EngineConfig, model: Model, offload: Offload | None, draft: Model | None = None) -> KVPlan:
    """The layout of KV cells, by the memory of the GPUs in use, or else of the machine. A draft model has as many."""
    on_gpu = offload is not None and offload.layers > 0
    memory = sum(share.device.free for share in offload.shares) if offload and on_gpu else available_memory()
    bytes_per_token = sum(each.kv_bytes_per_token(config.kv_type) for each in (model, draft) if each is not None)
    return plan_kv(config, model.context_trained, bytes_per_token, memory, on_gpu=on_gpu)


class Tuning:
    """What an engine chose; its number of threads may change."""

    def __init__(
        self, config: EngineConfig, plan: KVPlan, model: Model, offload: Offload | None, draft: Model | None = None
    ) -> None:
        self._plan = plan
        self._offload = offload
        self._layers = model.layers + 1
        self._kv_bytes = plan.cells * model.kv_bytes_per_token(plan.kv_type)
        self._draft_model = config.draft_model if draft is not None else None
        self._draft_bytes = draft.size + plan.cells * draft.kv_bytes_per_token(plan.kv_type) if draft is not None else 0
        self._threads_fixed, self._layers_fixed = config.threads is not None, config.gpu_layers is not None
        self._flash_attention = plan.flash_attention
        self.threads = config.threads or default_threads()
        """To begin with."""
        computes_here = offload is None or not offload.is_whole
        self.tuner = ThreadTuner(self.threads, IdleProcessors()) if computes_here and not config.threads else None
        """None where the number is set by hand, and where GPUs do it all."""

    @property
    def threads_now(self) -> int:
        """At the moment."""
        return self.tuner.threads if self.tuner else self.threads

    @property
    def changes(self) -> int:
        return self.tuner.changes if self.tuner else 0

    @property
    def gpu_layers(self) -> int:
        return self._offload.layers if self._offload else 0

    def note_context(self, log: LlamaLog) -> None:
        """Learns from llama.cpp's warnings about a new context that a device lacks flash attention."""
        if any("flash" in line.lower() and "disabled" in line for line in log.lines):
            self._flash_attention = False

    @property
    def status(self) -> TuningStatus:
        return TuningStatus(
            threads=self.threads_now,
            threads_most=self.threads,
            threads_fixed=self._threads_fixed,
            thread_changes=self.changes,
            thread_trials=self.tuner.trials if self.tuner else 0,
            flash_attention=self._flash_attention,
            kv_unified=self._plan.unified,
            kv_type=self._plan.kv_type,
            kv_cells=self._plan.cells,
            kv_bytes=self._kv_bytes,
            batch=self._plan.batch,
            ubatch=self._plan.ubatch,
            gpu_layers=self.gpu_layers,
            layers=self._layers,
            gpu_layers_fixed=self._layers_fixed,
            draft_model=self._draft_model,
            draft_bytes=self._draft_bytes,
            gpus=[_gpu(share) for share in self._offload.shares] if self._offload else [],
        )


def _gpu(share: Share) -> GPUShare:
    return GPUShare(
        name=share.device.name,
        description=share.device.description,
        layers=share.layers,
        weights=share.weights,
        kv=share.kv,
        compute=share.compute,
        free=share.device.free,
    )
