"""How a backend is: what `GET /v1/status` tells, and what the engine tells the server for it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

Whole = Annotated[int, Meta(ge=-(2**53), le=2**53)]
"""A number that a client can work with, whoever sent it."""
Natural = Annotated[int, Meta(ge=0, le=2**53)]
State = Literal["loading", "ready", "restarting", "failed", "draining"]


class StepTimes(Struct, frozen=True):
    """Where the engines' time went, in seconds."""

    steps: int = 0
    total: float = 0.0
    schedule: float = 0.0
    """Who is admitted, and which tokens a step computes."""
    draft: float = 0.0
    """A draft model's reading and guessing."""
    decode: float = 0.0
    """Inside `llama_decode` and the wait for its results."""
    sample: float = 0.0
    """Inside llama.cpp's samplers."""
    deliver: float = 0.0
    """All that is left: from tokens to text, to what is sent."""


class KVStoreStatus(Struct, frozen=True, kw_only=True):
    """KV states that no slot holds: conversations that can go on without being computed again. Sizes in bytes."""

    states: int = 0
    ram_bytes: int = 0
    ram_limit: int = 0
    disk_bytes: int = 0
    disk_limit: int = 0
    folder: str | None = None
    """Where the states on disk are; None is nowhere."""
    hits: int = 0
    """Prompts that found a state."""
    hit_tokens: int = 0
    """Tokens that were not computed because of that."""


class GPUShare(Struct, frozen=True, kw_only=True):
    """What a GPU takes on, in bytes, by the estimate that the layers were chosen with."""

    name: str
    description: str
    layers: int
    weights: int
    kv: int
    compute: int
    free: int
    """Before the model was loaded."""


class TuningStatus(Struct, frozen=True, kw_only=True):
    """How the engine computes: what it chose, and what was set by hand."""

    threads: int
    """At the moment."""
    threads_most: int
    """As many as the processors and their limits allow, or as were asked for."""
    threads_fixed: bool
    """Whether they were set by hand, and stay."""
    thread_changes: int = 0
    """How often another number of threads was better."""
    thread_trials: int = 0
    """How often one was tried."""
    flash_attention: bool
    kv_unified: bool
    kv_type: str
    kv_cells: int
    kv_bytes: int
    """What all KV cells take."""
    batch: int
    """The most tokens of a step."""
    ubatch: int
    """The most tokens that are computed at once in it."""
    gpu_layers: int
    layers: int
    """All of them, with the output as one."""
    gpu_layers_fixed: bool
    draft_model: str | None = None
    """The file of the model that guesses for it."""
    draft_bytes: int = 0
    """What its weights and KV cells take."""
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
    """Sequences that wait for one."""
    models: list[str] = []
    """Names of all models that requests may name."""
    loaded: list[str] = []
    """Names of the models that are loaded or being loaded."""
    active: int = 0
    """Requests that have not ended, in whatever state."""
    restarts: int = 0
    rss: Natural | None = None
    """Resident bytes of server and engine."""
    step_times: StepTimes | None = None
    tuning: TuningStatus | None = None
    kv_store: KVStoreStatus | None = None
