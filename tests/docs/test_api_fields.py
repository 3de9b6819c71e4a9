"""docs/api.md names every route of the server, every field of requests and answers, and every error."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec import Struct, structs
from starlette.applications import Starlette
from starlette.routing import Route

from llama_backend.errors import BackendError, Unreachable
from llama_backend.server.http.asgi_app import make_app
from llama_backend.server.state import ServerState
from llama_backend.server_config import ServerConfig
from llama_backend.wire.api import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    ModelInfo,
    ModelMeta,
    ResponseFormat,
    SchemaFormat,
    StreamOptions,
    TextPart,
    Timings,
    TokenCount,
    TokenizeRequest,
    Usage,
)
from llama_backend.wire.ipc import EngineConfig
from llama_backend.wire.sampling import SamplingParams
from llama_backend.wire.status import BackendStatus, GPUShare, KVStoreStatus, StepTimes, TuningStatus

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
TEXT = PAGE.read_text()
ROUTE = re.compile(r"`([A-Z]+) (/[^` ]*)`")
ERROR = re.compile(r"^\| (\d{3}) \| `(\w+)` \|", re.MULTILINE)


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    _, _, rest = TEXT.partition(f"\n## {title}\n")
    assert rest, f"there is no section {title!r}"
    return rest.partition("\n## ")[0]


def fields(*kinds: type[Struct]) -> set[str]:
    return {field.encode_name for kind in kinds for field in structs.fields(kind)}


def missing(names: set[str], text: str) -> set[str]:
    """The names that do not stand in `text` as code, alone or within a larger piece of it."""
    code = " ".join(re.findall(r"`([^`]+)`", text) + re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    return names - set(re.findall(r"\w+", code))


COMMON = (fields(ChatRequest) & fields(CompletionRequest)) - fields(SamplingParams) - {"logprobs"}
SECTIONS: dict[str, set[str]] = {
    "Fields of both completions": COMMON | fields(StreamOptions, ResponseFormat, SchemaFormat),
    "Chat completions": fields(ChatRequest, ChatMessage, TextPart) - COMMON - fields(SamplingParams),
    "Text completions": fields(CompletionRequest) - COMMON - fields(SamplingParams),
    "Embeddings": fields(EmbeddingRequest),
    "Counting tokens": fields(TokenizeRequest, TokenCount),
    "Answers": fields(Usage, Timings),
    "Models": fields(ModelInfo, ModelMeta),
    "Status": fields(BackendStatus, StepTimes, TuningStatus, GPUShare, KVStoreStatus),
}


@pytest.mark.parametrize("title", SECTIONS)
def test_every_field_is_named_where_it_belongs(title: str) -> None:
    assert missing(SECTIONS[title], section(title)) == set()


def test_every_route_is_named_and_no_other(tmp_path: Path) -> None:
    config = ServerConfig(model="m", engine=EngineConfig(path=str(tmp_path)))
    app = make_app(cast(ServerState, SimpleNamespace(config=config)))
    assert isinstance(app, Starlette)
    routes = {
        (method, re.sub(r":path}", "}", route.path))
        for route in app.routes
        if isinstance(route, Route)
        for method in (route.methods or {"GET"}) - {"HEAD"}
    }
    assert set(ROUTE.findall(section("Routes"))) == routes


def test_every_error_is_listed_with_its_status() -> None:
    def family(kind: type[BackendError]) -> set[type[BackendError]]:
        return {kind}.union(*map(family, kind.__subclasses__()))

    sent = family(BackendError) - family(Unreachable)
    assert set(ERROR.findall(section("Errors"))) == {(str(kind.status), kind.code) for kind in sent}
