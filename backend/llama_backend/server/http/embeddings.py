"""`POST /v1/embeddings`: the vectors of texts, in OpenAI's format."""

from __future__ import annotations

import base64
import struct
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.server.engines.pending import PendingEmbedding
from llama_backend.server.http.body import parse
from llama_backend.server.http.completion import unless_gone
from llama_backend.server.http.context import RequestContext
from llama_backend.server.http.routes import server_of
from llama_backend.server.request_metrics import RequestTimer
from llama_backend.wire.api import EmbeddingRequest, encode
from llama_backend.wire.ipc import Embed, Embedded


async def embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`."""
    body = await parse(request, EmbeddingRequest)
    texts = body.texts
    context = RequestContext.of(request, server_of(request), body.model, body.timeout)
    engine_request = Embed(inputs=texts, dimensions=body.dimensions, account=context.account)
    return await unless_gone(_answer(context, engine_request, body.encoding_format == "base64"), request)


async def _answer(context: RequestContext, engine_request: Embed, in_base64: bool) -> bytes:
    """The body of the response; cancelling this task cancels the work."""
    metrics = context.model.metrics
    timer = RequestTimer(metrics, context.account)
    with timer, context.admitted():
        async with context.engine() as requests:
            with requests.opened(PendingEmbedding(engine_request)) as pending, context.deadline.watching(pending):
                vectors = await pending.vectors()
        tokens = sum(vector.tokens for vector in vectors)
        timer.end("stop", tokens, 0)
        metrics.embedded_tokens += tokens
        return encode(_body(context.model.name, vectors, tokens, in_base64))


def _body(model: str, vectors: list[Embedded], tokens: int, in_base64: bool) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": vector.index, "embedding": _numbers(vector.data, in_base64)}
        for vector in vectors
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _numbers(data: bytes, in_base64: bool) -> str | list[float]:
    """A vector of little-endian float32 as text or as numbers."""
    return base64.b64encode(data).decode() if in_base64 else list(struct.unpack(f"<{len(data) // 4}f", data))
