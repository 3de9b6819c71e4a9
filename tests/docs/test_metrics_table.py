"""The tables in docs/metrics.md name exactly the metrics of the server's page, with their types and labels."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from llama_backend.server.access.admission import Admission
from llama_backend.server.access.auth import Authenticator
from llama_backend.server.engines.pool import ModelPool
from llama_backend.server.engines.served_model import ServedModel
from llama_backend.server.engines.watched_process import WatchedProcess
from llama_backend.server.http.metrics_page import render
from llama_backend.server.state import ServerState
from llama_backend.server.streaming.streams import Streams
from llama_backend.server_config import ServerConfig
from llama_backend.wire.ipc import EngineConfig, EngineStats
from llama_backend.wire.status import GPUShare, KVStoreStatus, StepTimes
from tests.support.server.reports import READY, TUNING

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(llama_chat_\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)
USED = re.compile(r"\bllama_chat_\w+")
Metrics = dict[str, tuple[str, frozenset[str]]]
"""Type and labels of each metric by its name."""


def model() -> ServedModel:
    """A model whose engine has said everything that an engine can say, on a GPU."""
    found = ServedModel("m", EngineConfig(path="/m.gguf"))
    found.loaded = True
    found.metrics.outcomes["stop"] = found.metrics.accounts["alice"] = found.metrics.account_tokens["alice"] = 1
    gpu = GPUShare(name="CUDA0", description="", layers=1, weights=1, kv=1, compute=1, free=9)
    status = found.supervisor.status
    status.process = cast(WatchedProcess, SimpleNamespace(pid=os.getpid()))
    status.tuning, status.kv_store = replace(TUNING, gpus=[gpu]), KVStoreStatus()
    status.ready = READY
    counts = ("prompt_tokens", "cached_tokens", "generated_tokens", "preemptions")
    cells = ("kv_cells", "kv_used", "kv_busy", "kv_shared")
    found.counters.take(EngineStats(times=StepTimes(), **dict.fromkeys((*counts, *cells), 1)))
    return found


def emitted() -> Metrics:
    first = model()
    server = ServerState(
        config=ServerConfig(model="m", engine=first.config),
        models=ModelPool(first),
        authenticator=Authenticator(None),
        admission=Admission(1),
        streams=Streams(1.0),
    )
    server.errors["not_found"] = 1
    families = text_string_to_metric_families(render(server).decode())
    return {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            frozenset(name for sample in family.samples for name in sample.labels) - {"le"},
        )
        for family in families
    }


def documented(text: str) -> Metrics:
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(text)}


def family_of(name: str, known: Iterable[str]) -> str:
    """The metric that a query names, without the ending of a histogram's sample."""
    found = re.sub(r"_(bucket|sum|count)$", "", name)
    return found if found in known else name


def test_the_tables_name_every_metric_with_its_type_and_labels() -> None:
    text = PAGE.read_text()
    assert documented(text) == emitted()
    assert len(ROW.findall(text)) == len(documented(text)), "a metric stands in two rows"


def test_queries_and_alerts_use_metrics_that_exist() -> None:
    known = emitted()
    used = {family_of(name, known) for name in USED.findall(PAGE.read_text())}
    assert used - set(known) == set()
