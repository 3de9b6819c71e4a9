"""The settings that an engine computes with, for its status: those chosen at the start, and the number of threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llama_backend.engine.llama.devices import gpu_devices, usable
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.llama.model import Model
from llama_backend.engine.placement.hardware import IdleProcessors, default_threads
from llama_backend.engine.placement.placement import Placement, place_on_gpus
from llama_backend.engine.placement.thread_tuner import ThreadTuner
from llama_backend.wire.ipc import EngineConfig
from llama_backend.wire.status import GPUShare, TuningStatus

if TYPE_CHECKING:
    from llama_backend.engine.placement.offload import Share


def plan_gpus(config: EngineConfig) -> Placement | None:
    """The placement of a model on GPUs; None where there is no GPU, or none is to be used.

    Raises DeviceUnavailable where a GPU was asked for that does not exist, and ModelUnreadable.
    """
    devices = gpu_devices()
    wanted = usable(devices, config.gpu_layers, config.tensor_split, config.main_gpu)
    return place_on_gpus(config, devices) if wanted else None


class Tuning:
    """The settings of an engine, of which only the number of threads changes."""

    def __init__(self, config: EngineConfig, placement: Placement, model: Model, draft: Model | None = None) -> None:
        kv = self._plan = placement.kv
        self._offload = placement.offload
        self._layers = model.layers + 1
        self._kv_bytes = kv.cells * model.kv_size.bytes_per_token(kv.kv_type)
        self._draft_model = config.draft_model if draft is not None else None
        self._draft_bytes = draft.size + kv.cells * draft.kv_size.bytes_per_token(kv.kv_type) if draft else 0
        self._threads_fixed, self._layers_fixed = config.threads is not None, config.gpu_layers is not None
        self._flash_attention = kv.flash_attention
        self.threads = config.threads or default_threads()
        """Threads at the start, which is also the largest number."""
        tuned = not self.is_all_on_gpus and not config.threads
        self.tuner = ThreadTuner(self.threads, IdleProcessors()) if tuned else None
        """None where the number is set by hand, and where GPUs compute all layers."""

    @property
    def threads_now(self) -> int:
        """Threads of the next step."""
        return self.tuner.threads if self.tuner else self.threads

    @property
    def changes(self) -> int:
        """How often the number of threads has changed."""
        return self.tuner.changes if self.tuner else 0

    @property
    def is_all_on_gpus(self) -> bool:
        """Whether GPUs compute all layers."""
        return self._offload is not None and self._offload.is_whole

    @property
    def gpu_layers(self) -> int:
        """Layers on GPUs, the output being one."""
        return self._offload.layers if self._offload else 0

    def note_context(self, log: LlamaLog) -> None:
        """Notes whether llama.cpp has warned, when it made the context, that a device has no flash attention."""
        if any("flash" in line.lower() and "disabled" in line for line in log.lines):
            self._flash_attention = False

    @property
    def status(self) -> TuningStatus:
        """The settings as `/v1/status` shows them."""
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
