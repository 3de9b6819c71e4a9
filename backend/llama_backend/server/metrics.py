"""`GET /metrics`: how the server and its engine are, for Prometheus. Nothing on it is from a request's content."""

from __future__ import annotations

import os

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.api import KVStoreStatus, StepTimes
from llama_backend.ipc import Stats
from llama_backend.server.backend import Server
from llama_backend.server.child import resident_bytes
from llama_backend.server.prometheus import CONTENT_TYPE, Labels, Page
from llama_backend.server.routes import server_of

_STATES = ("loading", "ready", "restarting", "failed")
_PARTS = ("schedule", "decode", "sample", "deliver")


async def metrics(request: Request) -> Response:
    """`GET /metrics`."""
    return Response(render(server_of(request)), headers={"Content-Type": CONTENT_TYPE})


def render(server: Server) -> bytes:
    """The page, in Prometheus' text format."""
    page = Page("llama_chat_")
    model = {"model": server.config.model}
    _write_server(page, server)
    _write_requests(page, server, model)
    _write_engine(page, server, model)
    stats = server.supervisor.totals.stats
    if stats is not None:
        _write_tokens(page, stats, model)
        _write_steps(page, stats.times, model)
        _write_cells(page, stats, model)
    if server.supervisor.kv_store is not None:
        _write_store(page, server.supervisor.kv_store, model)
    return page.content


def _write_server(page: Page, server: Server) -> None:
    page.gauge("info", "The version that runs.", ({"version": server.version}, 1))
    page.gauge("draining", "Whether the server ends once its running answers are complete.", ({}, server.draining))
    errors = [({"code": code}, count) for code, count in sorted(server.errors.items())]
    page.counter("errors_total", "Requests answered with an error, by its code.", *errors)


def _write_requests(page: Page, server: Server, model: Labels) -> None:
    meter, supervisor = server.meter, server.supervisor
    outcomes = [({**model, "outcome": name}, count) for name, count in sorted(meter.outcomes.items())]
    page.counter("requests_total", "Requests that have ended, by finish reason or code of the error.", *outcomes)
    for name, about, by_account in (
        ("key_requests_total", "Requests that have ended, by the name of the key.", meter.accounts),
        ("key_tokens_total", "Tokens of prompts and answers, by the name of the key.", meter.account_tokens),
    ):
        page.counter(name, about, *[({**model, "key": key}, count) for key, count in sorted(by_account.items())])
    page.counter("embedding_tokens_total", "Tokens of texts that were embedded.", (model, meter.embedded_tokens))
    page.gauge("requests_active", "Answers asked for that have not ended.", (model, server.admission.inside))
    page.gauge("requests_running", "Sequences that have a slot.", (model, supervisor.running))
    page.gauge("requests_queued", "Sequences that wait for a slot.", (model, supervisor.waiting))
    page.histogram("request_queue_seconds", "From acceptance by the engine to the first step.", (model, meter.queue))
    page.histogram("time_to_first_token_seconds", "From arrival to the first text.", (model, meter.first_token))
    page.histogram("inter_token_seconds", "Between a text of an answer and the next.", (model, meter.gap))
    page.histogram("request_duration_seconds", "From arrival to the end.", (model, meter.duration))


def _write_engine(page: Page, server: Server, model: Labels) -> None:
    supervisor, ready = server.supervisor, server.supervisor.ready
    page.gauge("model_loaded", "Whether requests can be computed.", (model, supervisor.state == "ready"))
    states = [({**model, "state": state}, state == supervisor.state) for state in _STATES]
    page.gauge("engine_state", "The engine's state, one of these.", *states)
    page.counter(
        "engine_restarts_total", "Engines that died and were followed by another.", (model, supervisor.restarts)
    )
    sizes = [({"process": "server"}, resident_bytes(os.getpid()))]
    if supervisor.pid is not None:
        sizes.append(({"process": "engine", **model}, resident_bytes(supervisor.pid)))
    page.gauge("resident_memory_bytes", "Resident memory of each process.", *sizes)
    if ready is not None:
        page.gauge("slots", "Sequences that can be computed at the same time.", (model, ready.slots))
        page.gauge("context_tokens", "Tokens of one sequence.", (model, ready.context))
        page.gauge("threads", "Threads that compute.", (model, ready.threads))
        page.gauge("gpu_layers", "Layers on the GPU; -1 is all.", (model, ready.gpu_layers))
        page.gauge("model_size_bytes", "Bytes of the weights.", (model, ready.size))


def _write_tokens(page: Page, stats: Stats, model: Labels) -> None:
    page.counter("prompt_tokens_total", "Tokens of prompts.", (model, stats.prompt_tokens))
    about = "Tokens of prompts that were not computed again."
    page.counter("prefix_cache_hit_tokens_total", about, (model, stats.cached_tokens))
    page.counter("generated_tokens_total", "Tokens of answers.", (model, stats.generated_tokens))
    page.counter("preemptions_total", "Sequences that gave up their cells to others.", (model, stats.preemptions))


def _write_steps(page: Page, times: StepTimes, model: Labels) -> None:
    parts = [({**model, "part": part}, float(getattr(times, part))) for part in _PARTS]
    page.counter("steps_total", "Batches that were computed.", (model, times.steps))
    page.counter("step_seconds_total", "Where the time of steps went.", *parts)


def _write_cells(page: Page, stats: Stats, model: Labels) -> None:
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
