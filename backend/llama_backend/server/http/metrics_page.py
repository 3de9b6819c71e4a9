"""`GET /metrics`: the state of the server and its engines, for Prometheus; nothing of the contents of requests."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.server.engines.served_model import ServedModel
from llama_backend.server.engines.watched_process import resident_bytes
from llama_backend.server.http.routes import server_of
from llama_backend.server.prometheus import CONTENT_TYPE, Labels, Page
from llama_backend.server.state import ServerState
from llama_backend.wire.ipc import EngineStats
from llama_backend.wire.status import KVStoreStatus, StepTimes, TuningStatus

_STATES = ("unloaded", "loading", "ready", "restarting", "failed")
_PARTS = ("schedule", "draft", "decode", "sample", "deliver")


async def metrics(request: Request) -> Response:
    """`GET /metrics`."""
    return Response(render(server_of(request)), headers={"Content-Type": CONTENT_TYPE})


def render(server: ServerState) -> bytes:
    """The page, in Prometheus' text format."""
    page = Page("llama_chat_")
    _write_server(page, server)
    for model in server.models.used or [server.models.first]:
        _write_model(page, model)
    return page.content


def _write_model(page: Page, model: ServedModel) -> None:
    labels = {"model": model.name}
    _write_requests(page, model, labels)
    _write_engine(page, model, labels)
    stats, store = model.counters.stats, model.supervisor.status.kv_store
    if stats is not None:
        _write_tokens(page, stats, labels)
        _write_steps(page, stats.times, labels)
        _write_cells(page, stats, labels)
    if store is not None:
        _write_store(page, store, labels)


def _write_server(page: Page, server: ServerState) -> None:
    page.gauge("info", "The version of the server.", ({"version": server.version}, 1))
    page.gauge("draining", "Whether the server is ending, after its running answers.", ({}, server.draining))
    page.gauge("requests_active", "Requested answers that have not ended.", ({}, server.admission.inside))
    sizes = ({"process": "server"}, resident_bytes(os.getpid()))
    page.gauge("resident_memory_bytes", "Resident memory of each process.", sizes)
    errors = [({"code": code}, count) for code, count in sorted(server.errors.items())]
    page.counter("errors_total", "Requests answered with an error, by the error's code.", *errors)


def _write_requests(page: Page, served: ServedModel, model: Labels) -> None:
    found, status = served.metrics, served.supervisor.status
    outcomes = [({**model, "outcome": name}, count) for name, count in sorted(found.outcomes.items())]
    page.counter("requests_total", "Requests that have ended, by finish reason or error code.", *outcomes)
    for name, about, by_account in (
        ("key_requests_total", "Requests that have ended, by the name of the key.", found.accounts),
        ("key_tokens_total", "Tokens of prompts and answers, by the name of the key.", found.account_tokens),
    ):
        page.counter(name, about, *[({**model, "key": key}, count) for key, count in sorted(by_account.items())])
    page.counter("embedding_tokens_total", "Tokens of embedded texts.", (model, found.embedded_tokens))
    page.counter("drafted_tokens_total", "Tokens that speculation drafted.", (model, found.drafted))
    page.counter("drafted_tokens_accepted_total", "Drafted tokens that were right.", (model, found.drafts_accepted))
    page.gauge("requests_running", "Sequences that have a slot.", (model, status.running))
    page.gauge("requests_queued", "Sequences that wait for a slot.", (model, status.waiting))
    page.histogram("request_queue_seconds", "Time in the engine before the first step.", (model, found.queue))
    page.histogram("time_to_first_token_seconds", "Time from arrival to the first text.", (model, found.first_token))
    page.histogram("inter_token_seconds", "Time between two texts of one answer.", (model, found.gap))
    page.histogram("request_duration_seconds", "Time from arrival to the end.", (model, found.duration))


def _write_engine(page: Page, served: ServedModel, model: Labels) -> None:
    status = served.supervisor.status
    ready = status.ready
    page.gauge("model_loaded", "Whether requests can be computed.", (model, served.state == "ready"))
    states = [({**model, "state": state}, state == served.state) for state in _STATES]
    page.gauge("engine_state", "The state of the engine: 1 for the present state, 0 for the others.", *states)
    page.counter("engine_restarts_total", "Engines that died and were restarted.", (model, served.restarts))
    if status.process is not None:
        size = ({"process": "engine", **model}, resident_bytes(status.process.pid))
        page.gauge("resident_memory_bytes", "Resident memory of each process.", size)
    if status.tuning is not None:
        write_tuning(page, status.tuning, model)
    if ready is not None:
        page.gauge("slots", "Sequences that can be computed at the same time.", (model, ready.slots))
        page.gauge("context_tokens", "Most tokens of one sequence, prompt and answer together.", (model, ready.context))
        page.gauge("model_size_bytes", "Size of the weights in bytes.", (model, ready.size))


def write_tuning(page: Page, tuning: TuningStatus, model: Labels) -> None:
    """Adds how a model is computed: threads, KV cells, and what is on GPUs."""
    page.gauge("threads", "Threads that compute now.", (model, tuning.threads))
    page.counter("thread_changes_total", "How often the number of threads was changed.", (model, tuning.thread_changes))
    page.gauge("gpu_layers", "Layers on GPUs.", (model, tuning.gpu_layers))
    page.gauge("kv_bytes", "Memory of all KV cells.", (model, tuning.kv_bytes))
    parts = [
        ({**model, "gpu": gpu.name, "part": part}, size)
        for gpu in tuning.gpus
        for part, size in (("weights", gpu.weights), ("kv", gpu.kv), ("compute", gpu.compute))
    ]
    page.gauge("gpu_memory_bytes", "Estimated GPU memory that the model takes.", *parts)


def _write_tokens(page: Page, stats: EngineStats, model: Labels) -> None:
    page.counter("prompt_tokens_total", "Tokens of prompts.", (model, stats.prompt_tokens))
    about = "Prompt tokens that did not have to be computed, because their KV cells were kept."
    page.counter("prefix_cache_hit_tokens_total", about, (model, stats.cached_tokens))
    page.counter("generated_tokens_total", "Tokens of answers.", (model, stats.generated_tokens))
    page.counter("preemptions_total", "Sequences that lost their KV cells to others.", (model, stats.preemptions))


def _write_steps(page: Page, times: StepTimes, model: Labels) -> None:
    parts = [({**model, "part": part}, float(getattr(times, part))) for part in _PARTS]
    page.counter("steps_total", "Batches that were computed.", (model, times.steps))
    page.counter("step_seconds_total", "Time of the steps by what it was spent on.", *parts)


def _write_cells(page: Page, stats: EngineStats, model: Labels) -> None:
    page.gauge("kv_cells", "KV cells; each holds one token.", (model, stats.kv_cells))
    page.gauge("kv_cells_used", "KV cells that hold tokens, also of sequences that have ended.", (model, stats.kv_used))
    page.gauge("kv_cells_busy", "KV cells of running sequences.", (model, stats.kv_busy))
    page.gauge("kv_cells_shared", "KV cells saved because sequences share them.", (model, stats.kv_shared))
    page.gauge(
        "kv_usage_ratio",
        "Part of the KV cells that is busy, 0 to 1.",
        (model, stats.kv_busy / max(stats.kv_cells, 1)),
    )


def _write_store(page: Page, store: KVStoreStatus, model: Labels) -> None:
    sizes = [({**model, "tier": "ram"}, store.ram_bytes), ({**model, "tier": "disk"}, store.disk_bytes)]
    page.gauge("kv_store_bytes", "Size of the KV states kept outside the slots.", *sizes)
    page.gauge("kv_store_states", "KV states kept outside the slots.", (model, store.states))
    page.counter("kv_store_hits_total", "Prompts that could use a kept KV state.", (model, store.hits))
    page.counter("kv_store_hit_tokens_total", "Prompt tokens that a kept KV state saved.", (model, store.hit_tokens))
