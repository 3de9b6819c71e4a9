"""`POST /v1/embeddings`: the vectors of texts, as OpenAI writes them."""

from __future__ import annotations

import base64
import struct

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.server.http.body import parse
from llama_backend.server.http.completion import unless_gone
from llama_backend.server.http.context import Call
from llama_backend.server.http.routes import server_of
from llama_backend.server.request_metrics import Stopwatch
from llama_backend.wire.api import EmbeddingRequest, encode
from llama_backend.wire.ipc import Embedded


async def embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`."""
    body = await parse(request, EmbeddingRequest)
    texts = body.texts
    work = _Work(Call.of(request, server_of(request), body.model, body.timeout), body)
    return await unless_gone(work.answer(texts), request)


class _Work:
    """One request for embeddings."""

    def __init__(self, call: Call, body: EmbeddingRequest) -> None:
        self._call = call
        self._body = body

    async def answer(self, texts: list[str | list[int]]) -> bytes:
        """The answer as it is sent; leaving early cancels the work."""
        call, meter = self._call, self._call.model.meter
        watch = Stopwatch(meter, call.account)
        with watch, call.admitted():
            async with call.engine() as supervisor:
                ticket = supervisor.embed(texts, self._body.dimensions, call.account)
                try:
                    with call.deadline.watching(ticket):
                        found = await ticket.vectors()
                finally:
                    supervisor.release(ticket)
            tokens = sum(vector.tokens for vector in found)
            watch.end("stop", tokens, 0)
            meter.embedded_tokens += tokens
            return self._written(found, tokens)

    def _written(self, found: list[Embedded], tokens: int) -> bytes:
        in_base64 = self._body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": vector.index, "embedding": _numbers(vector.data, in_base64)}
            for vector in found
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return encode({"object": "list", "data": data, "model": self._call.model.name, "usage": usage})


def _numbers(data: bytes, in_base64: bool) -> str | list[float]:
    """A vector of little-endian float32 as text or as numbers."""
    return base64.b64encode(data).decode() if in_base64 else list(struct.unpack(f"<{len(data) // 4}f", data))
