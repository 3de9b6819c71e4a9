"""`GET /metrics`: how the server and its engines are, for Prometheus. Nothing on it is from a request's content."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.server.engines.link import resident_bytes
from llama_backend.server.engines.served_model import HostedModel
from llama_backend.server.http.routes import server_of
from llama_backend.server.prometheus import CONTENT_TYPE, Labels, Page
from llama_backend.server.state import Server
from llama_backend.wire.ipc import EngineStats
from llama_backend.wire.status import KVStoreStatus, StepTimes, TuningStatus

_STATES = ("unloaded", "loading", "ready", "restarting", "failed")
_PARTS = ("schedule", "draft", "decode", "sample", "deliver")


async def metrics(request: Request) -> Response:
    """`GET /metrics`."""
    return Response(render(server_of(request)), headers={"Content-Type": CONTENT_TYPE})


def render(server: Server) -> bytes:
    """The page, in Prometheus' text format."""
    page = Page("llama_chat_")
    _write_server(page, server)
    for model in server.models.used or [server.models.first]:
        _write_model(page, model)
    return page.content


def _write_model(page: Page, model: HostedModel) -> None:
    labels = {"model": model.name}
    _write_requests(page, model, labels)
    _write_engine(page, model, labels)
    stats, store = model.totals.stats, model.supervisor.kv_store
    if stats is not None:
        _write_tokens(page, stats, labels)
        _write_steps(page, stats.times, labels)
        _write_cells(page, stats, labels)
    if store is not None:
        _write_store(page, store, labels)


def _write_server(page: Page, server: Server) -> None:
    page.gauge("info", "The version that runs.", ({"version": server.version}, 1))
    page.gauge("draining", "Whether the server ends once its running answers are complete.", ({}, server.draining))
    page.gauge("requests_active", "Answers asked for that have not ended.", ({}, server.admission.inside))
    sizes = ({"process": "server"}, resident_bytes(os.getpid()))
    page.gauge("resident_memory_bytes", "Resident memory of each process.", sizes)
    errors = [({"code": code}, count) for code, count in sorted(server.errors.items())]
    page.counter("errors_total", "Requests answered with an error, by its code.", *errors)


def _write_requests(page: Page, hosted: HostedModel, model: Labels) -> None:
    meter, supervisor = hosted.meter, hosted.supervisor
    outcomes = [({**model, "outcome": name}, count) for name, count in sorted(meter.outcomes.items())]
    page.counter("requests_total", "Requests that have ended, by finish reason or code of the error.", *outcomes)
    for name, about, by_account in (
        ("key_requests_total", "Requests that have ended, by the name of the key.", meter.accounts),
        ("key_tokens_total", "Tokens of prompts and answers, by the name of the key.", meter.account_tokens),
    ):
        page.counter(name, about, *[({**model, "key": key}, count) for key, count in sorted(by_account.items())])
    page.counter("embedding_tokens_total", "Tokens of texts that were embedded.", (model, meter.embedded_tokens))
    page.counter("drafted_tokens_total", "Tokens that speculation drafted.", (model, meter.drafted))
    page.counter("drafted_tokens_accepted_total", "Those of them that were right.", (model, meter.drafts_accepted))
    page.gauge("requests_running", "Sequences that have a slot.", (model, supervisor.running))
    page.gauge("requests_queued", "Sequences that wait for a slot.", (model, supervisor.waiting))
    page.histogram("request_queue_seconds", "From acceptance by the engine to the first step.", (model, meter.queue))
    page.histogram("time_to_first_token_seconds", "From arrival to the first text.", (model, meter.first_token))
    page.histogram("inter_token_seconds", "Between a text of an answer and the next.", (model, meter.gap))
    page.histogram("request_duration_seconds", "From arrival to the end.", (model, meter.duration))


def _write_engine(page: Page, hosted: HostedModel, model: Labels) -> None:
    supervisor, ready = hosted.supervisor, hosted.supervisor.ready
    page.gauge("model_loaded", "Whether requests can be computed.", (model, hosted.state == "ready"))
    states = [({**model, "state": state}, state == hosted.state) for state in _STATES]
    page.gauge("engine_state", "The engine's state, one of these.", *states)
    page.counter("engine_restarts_total", "Engines that died and were followed by another.", (model, hosted.restarts))
    if supervisor.pid is not None:
        size = ({"process": "engine", **model}, resident_bytes(supervisor.pid))
        page.gauge("resident_memory_bytes", "Resident memory of each process.", size)
    if supervisor.tuning is not None:
        _write_tuning(page, supervisor.tuning, model)
    if ready is not None:
        page.gauge("slots", "Sequences that can be computed at the same time.", (model, ready.slots))
        page.gauge("context_tokens", "Tokens of one sequence.", (model, ready.context))
        page.gauge("model_size_bytes", "Bytes of the weights.", (model, ready.size))


def _write_tuning(page: Page, tuning: TuningStatus, model: Labels) -> None:
    page.gauge("threads", "Threads that compute at the moment.", (model, tuning.threads))
    page.counter("thread_changes_total", "How often another number was better.", (model, tuning.thread_changes))
    page.gauge("gpu_layers", "Layers on GPUs.", (model, tuning.gpu_layers))
    page.gauge("kv_bytes", "Memory of all KV cells.", (model, tuning.kv_bytes))
    parts = [
        ({**model, "gpu": gpu.name, "part": part}, size)
        for gpu in tuning.gpus
        for part, size in (("weights", gpu.weights), ("kv", gpu.kv), ("compute", gpu.compute))
    ]
    page.gauge("gpu_memory_bytes", "Memory of a GPU that the model takes, by estimate.", *parts)


def _write_tokens(page: Page, stats: EngineStats, model: Labels) -> None:
    page.counter("prompt_tokens_total", "Tokens of prompts.", (model, stats.prompt_tokens))
    about = "Tokens of prompts that were not computed again."
    page.counter("prefix_cache_hit_tokens_total", about, (model, stats.cached_tokens))
    page.counter("generated_tokens_total", "Tokens of answers.", (model, stats.generated_tokens))
    page.counter("preemptions_total", "Sequences that gave up their cells to others.", (model, stats.preemptions))


def _write_steps(page: Page, times: StepTimes, model: Labels) -> None:
    parts = [({**model, "part": part}, float(getattr(times, part))) for part in _PARTS]
    page.counter("steps_total", "Batches that were computed.", (model, times.steps))
    page.counter("step_seconds_total", "Where the time of steps went.", *parts)


def _write_cells(page: Page, stats: EngineStats, model: Labels) -> None:
    page.gauge("kv_cells", "KV cells, each for a token.", (model, stats.kv_cells))
    page.gauge("kv_cells_used", "Cells that hold tokens, also of those who have ended.", (model, stats.kv_used))
    page.gauge("kv_cells_busy", "Cells of sequences that run.", (model, stats.kv_busy))
    page.gauge("kv_cells_shared", "Cells that are saved since sequences share them.", (model, stats.kv_shared))
    page.gauge("kv_usage_ratio", "Busy cells of all.", (model, stats.kv_busy / max(stats.kv_cells, 1)))


def _write_store(page: Page, store: KVStoreStatus, model: Labels) -> None:
    sizes = [({**model, "tier": "ram"}, store.ram_bytes), ({**model, "tier": "disk"}, store.disk_bytes)]
    page.gauge("kv_store_bytes", "KV states that no slot holds.", *sizes)
    page.gauge("kv_store_states", "How many of them there are.", (model, store.states))
    page.counter("kv_store_hits_total", "Prompts that found one.", (model, store.hits))
    page.counter("kv_store_hit_tokens_total", "Tokens that were not computed for that.", (model, store.hit_tokens))
