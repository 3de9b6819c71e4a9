"""The state of a backend: the answer of `GET /v1/status`, and its parts, which the engine reports to the server."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
"""An integer that JSON numbers hold exactly, whichever server sent it."""
Natural = Annotated[int, Meta(ge=0, le=2**53)]
State = Literal["loading", "ready", "restarting", "failed", "draining"]


class StepTimes(Struct, frozen=True):
    """The time of the engines' steps by what it was spent on, in seconds."""

    steps: int = 0
    total: float = 0.0
    schedule: float = 0.0
    """Choosing the sequences and the tokens of a step."""
    draft: float = 0.0
    """Computing with a draft model."""
    decode: float = 0.0
    """Inside `llama_decode`, and waiting for its results."""
    sample: float = 0.0
    """Inside llama.cpp's samplers."""
    deliver: float = 0.0
    """Everything else: turning tokens into text and sending it."""


class KVStoreStatus(Struct, frozen=True, kw_only=True):
    """KV states kept outside the slots, so that conversations go on without being computed again. Sizes in bytes."""

    states: int = 0
    ram_bytes: int = 0
    ram_limit: int = 0
    disk_bytes: int = 0
    disk_limit: int = 0
    folder: str | None = None
    """Where states are kept on disk; None means that none are."""
    hits: int = 0
    """Prompts that could use a kept state."""
    hit_tokens: int = 0
    """Prompt tokens that kept states saved."""


class GPUShare(Struct, frozen=True, kw_only=True):
    """The part of the model on one GPU, in bytes, as estimated when the layers were placed."""

    name: str
    description: str
    layers: int
    weights: int
    kv: int
    compute: int
    free: int
    """Free memory before the model was loaded."""


class TuningStatus(Struct, frozen=True, kw_only=True):
    """The settings that the engine computes with, chosen by itself or set by hand."""

    threads: int
    """Threads that compute now."""
    threads_most: int
    """Most threads that the processors and their limits allow, or as many as were asked for."""
    threads_fixed: bool
    """Whether the number was set by hand and does not change."""
    thread_changes: int = 0
    """How often the number of threads was changed."""
    thread_trials: int = 0
    """How often another number was tried."""
    flash_attention: bool
    kv_unified: bool
    kv_type: str
    kv_cells: int
    kv_bytes: int
    """Memory of all KV cells."""
    batch: int
    """Most tokens of a step."""
    ubatch: int
    """Most tokens of a step that are computed at once."""
    gpu_layers: int
    layers: int
    """All layers of the model, with the output layer."""
    gpu_layers_fixed: bool
    draft_model: str | None = None
    """The file of the draft model."""
    draft_bytes: int = 0
    """Memory of the draft model's weights and KV cells."""
    gpus: list[GPUShare] = []


class BackendStatus(Struct, frozen=True, kw_only=True):
    """`GET /v1/status`."""

    state: State
    model: str
    progress: float = 0.0
    """Part of the model that is loaded, 0 to 1."""
    reason: str | None = None
    """Why the state is `failed` or `restarting`."""
    version: str = ""
    pid: Natural = 0
    engine_pid: int | None = None
    uptime: float = 0.0
    """Seconds."""
    log: str | None = None
    path: str | None = None
    context: Natural | None = None
    slots: Natural | None = None
    threads: Natural | None = None
    kv_unified: bool | None = None
    gpu_layers: int | None = None
    running: Natural = 0
    """Sequences that have a slot."""
    waiting: Natural = 0
    """Sequences that wait for a slot."""
    models: list[str] = []
    """Names of all models that requests may name."""
    loaded: list[str] = []
    """Names of the models that are loaded or being loaded."""
    active: int = 0
    """Answers that were asked for and have not ended."""
    restarts: int = 0
    """Engines that died and were followed by another."""
    rss: Natural | None = None
    """Resident bytes of the server and its engines."""
    step_times: StepTimes | None = None
    tuning: TuningStatus | None = None
    kv_store: KVStoreStatus | None = None
