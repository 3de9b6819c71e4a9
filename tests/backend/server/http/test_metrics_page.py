"""What `/metrics` tells, over a server on a fake engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from llama_backend.server.http.metrics_page import write_tuning
from llama_backend.server.prometheus import Page
from llama_backend.server.request_metrics import RequestMetrics, RequestTimer
from llama_backend.wire.api import Timings
from llama_backend.wire.ipc import SequenceOutput
from llama_backend.wire.status import GPUShare
from tests.backend.server.conftest import Serve
from tests.support.server.fake_engine import FakeModel
from tests.support.server.harness import CHAT, MODEL, ServerProcess, chat, free_port
from tests.support.server.reports import TUNING
from tests.support.wait import until

Metrics = Callable[..., float]


def read(client: httpx2.Client) -> Metrics:
    """The value of a sample by name and labels; 0 where there is none."""
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }

    def value(name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(value for (other, has), value in found.items() if other == f"llama_chat_{name}" and wanted <= has)

    return value


def metrics(server: ServerProcess) -> Metrics:
    with server.http() as client:
        return read(client)


def test_requests_and_tokens_are_counted(serve: Serve) -> None:
    server = serve()
    with server.http() as client:
        client.post(CHAT, json=chat("a b c d"))
        client.post(CHAT, json=chat("a b c", stream=True))
        client.post(CHAT, json=chat("words=9", max_tokens=2, n=2))
        client.post(CHAT, json=chat("error"))
        client.post(CHAT, json={"messages": []})
        client.post(CHAT, json=chat("word " * 300))
        client.get("/nowhere")
    server.wait_idle()
    value = metrics(server)
    for outcome, count in {"stop": 2, "length": 1, "internal_error": 1, "context_length_exceeded": 1}.items():
        assert value("requests_total", model=MODEL, outcome=outcome) == count, outcome
    assert value("requests_total") == 5
    for code, count in {
        "invalid_request": 1,
        "context_length_exceeded": 1,
        "not_found": 1,
        "internal_error": 1,
    }.items():
        assert value("errors_total", code=code) == count, code
    assert (value("prompt_tokens_total"), value("generated_tokens_total")) == (4 + 3 + 1 + 1, 4 + 3 + 2 * 2 + 1)
    assert value("prefix_cache_hit_tokens_total") == 4
    assert value("time_to_first_token_seconds_count") == 5
    assert value("inter_token_seconds_count") == 3 + 2 + 2
    assert value("request_duration_seconds_count") == 5
    assert value("request_queue_seconds_count") == 5
    assert (value("model_loaded", model=MODEL), value("engine_state", state="ready"), value("slots")) == (1, 1, 2)
    assert (value("kv_cells"), value("kv_cells_used"), value("kv_cells_shared")) == (256, 3, 1)
    assert value("step_seconds_total", part="decode") == 0.5
    assert value("resident_memory_bytes", process="server") > 1e7
    assert value("resident_memory_bytes", process="engine") > 1e6


def test_the_queue_and_those_who_go_away(serve: Serve) -> None:
    server = serve(slots=1)
    with server.http() as client, client.stream("POST", CHAT, json=chat("words=1000 delay=0.1", stream=True)) as stream:
        text = stream.iter_bytes()
        next(text)
        with server.http() as other, pytest.raises(httpx2.ReadTimeout):
            other.post(CHAT, json=chat("a"), timeout=0.3)
        until(lambda: metrics(server)("requests_total", outcome="cancelled") == 1, what="the first cancellation")
        value = metrics(server)
        assert (value("requests_running"), value("requests_queued"), value("requests_active")) == (1, 0, 1)
    until(lambda: metrics(server)("requests_total", outcome="cancelled") == 2, what="the second cancellation")


def test_counters_go_on_when_an_engine_dies(serve: Serve) -> None:
    server = serve()
    with server.http() as client:
        client.post(CHAT, json=chat("a b"))
        assert "engine_died" in client.post(CHAT, json=chat("words=3 die=1", stream=True)).text
        server.wait_state("ready")
        client.post(CHAT, json=chat("a b c"))
    server.wait_idle()
    value = metrics(server)
    assert value("engine_restarts_total") == 1
    assert value("generated_tokens_total") == 2 + 1 + 3
    assert value("requests_total", outcome="engine_died") == 1


def test_while_the_model_loads(serve: Serve) -> None:
    server = serve(FakeModel(load=20), ready=False)
    with server.http() as client:
        assert client.post(CHAT, json=chat()).status_code == 503
    value = metrics(server)
    assert (value("model_loaded"), value("engine_state", state="loading")) == (0, 1)
    assert value("requests_total", outcome="unavailable") == 1


def test_a_key_is_needed_where_there_are_keys(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    server = serve(host="127.0.0.1", port=free_port(), api_key_file=str(tmp_path / "keys"))
    with server.tcp() as client:
        assert client.get("/metrics").status_code == 401
    with server.tcp(headers={"Authorization": "Bearer secret"}) as client:
        assert read(client)("errors_total", code="invalid_api_key") == 1
        assert "secret" not in client.get("/metrics").text
    assert metrics(server)("model_loaded") == 1


def test_open_metrics_need_no_key_and_no_host(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    server = serve(host="127.0.0.1", port=free_port(), api_key_file=str(tmp_path / "keys"), metrics_open=True)
    with server.tcp(headers={"Host": "llama.example"}) as client:
        assert read(client)("model_loaded") == 1
        assert client.head("/metrics").status_code == 200
        assert client.get("/v1/models").status_code == 401


def test_being_watched_keeps_no_server_alive(serve: Serve) -> None:
    server = serve(idle_exit=0.5, ready=False)

    def ended() -> bool:
        with suppress(OSError), server.raw() as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
            sock.recv(1 << 16)
        return server.process.poll() is not None

    until(ended, what="the end of an idle server")


def test_how_it_computes_and_what_gpus_take() -> None:
    gpu = GPUShare(name="CUDA0", description="x", layers=9, weights=5, kv=3, compute=2, free=99)
    tuning = replace(TUNING, threads=3, thread_changes=2, kv_bytes=16, gpu_layers=9, layers=9, gpus=[gpu])
    page = Page("")
    write_tuning(page, tuning, {"model": "m"})
    text = page.content.decode()
    for line in ("threads", "thread_changes_total", "gpu_layers", "kv_bytes"):
        assert f'\n{line}{{model="m"}} ' in f"\n{text}"
    assert 'gpu_memory_bytes{model="m",gpu="CUDA0",part="kv"} 3' in text


def test_a_request_timer_tells_answers_apart() -> None:
    found = RequestMetrics()
    with RequestTimer(found) as timer:
        for number in (1, 2, 1, 2, 1):
            timer(SequenceOutput(number, "x"), 1e9)
        timer(SequenceOutput(1, "", "stop", timings=Timings(draft_n=5, draft_n_accepted=4)), 1e9)
    assert (found.drafted, found.drafts_accepted) == (5, 4)
    assert (found.first_token.count, found.gap.count, dict(found.outcomes)) == (2, 3, {"stop": 1})
