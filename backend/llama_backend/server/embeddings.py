"""`POST /v1/embeddings`: the vectors of texts, as OpenAI writes them."""

from __future__ import annotations

import base64
import struct
from time import monotonic

from starlette.requests import Request
from starlette.responses import Response

from llama_backend.account import Account
from llama_backend.api import EmbeddingRequest, encode
from llama_backend.ipc import Embedded
from llama_backend.server.backend import Server
from llama_backend.server.body import parse
from llama_backend.server.completion import patience, unless_gone
from llama_backend.server.deadline import Deadline, deadline_of
from llama_backend.server.hosted import HostedModel
from llama_backend.server.meter import Stopwatch
from llama_backend.server.routes import server_of


async def embeddings(request: Request) -> Response:
    """`POST /v1/embeddings`."""
    server, account = server_of(request), request.state.account
    body = await parse(request, EmbeddingRequest)
    texts = body.texts
    model = server.models.find(body.model)
    server.check_open()
    deadline = deadline_of(request, body.timeout, server.config.request_timeout)
    server.rates.take(account, monotonic())
    work = _Work(server, model, body, account, patience(request), deadline)
    return await unless_gone(work.answer(texts), request)


class _Work:
    """One request for embeddings."""

    def __init__(
        self,
        server: Server,
        model: HostedModel,
        body: EmbeddingRequest,
        account: Account,
        patience: float,
        deadline: Deadline,
    ) -> None:
        self._server = server
        self._model = model
        self._body = body
        self._account = account
        self._patience = patience
        self._deadline = deadline

    async def answer(self, texts: list[str | list[int]]) -> bytes:
        """The answer as it is sent; leaving early cancels the work."""
        server, model, deadline = self._server, self._model, self._deadline
        watch = Stopwatch(model.meter, self._account)
        with watch, server.admission.enter(server.slots, account=self._account):
            async with server.models.use(model, self._patience, deadline) as supervisor:
                ticket = supervisor.embed(texts, self._body.dimensions, self._account)
                try:
                    with deadline.watching(ticket):
                        found = await ticket.vectors()
                finally:
                    supervisor.release(ticket)
            tokens = sum(vector.tokens for vector in found)
            watch.end("stop", tokens, 0)
            model.meter.embedded_tokens += tokens
            return self._written(found, tokens)

    def _written(self, found: list[Embedded], tokens: int) -> bytes:
        in_base64 = self._body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": vector.index, "embedding": _numbers(vector.data, in_base64)}
            for vector in found
        ]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return encode({"object": "list", "data": data, "model": self._model.name, "usage": usage})


def _numbers(data: bytes, in_base64: bool) -> str | list[float]:
    """A vector of little-endian float32 as text or as numbers."""
    return base64.b64encode(data).decode() if in_base64 else list(struct.unpack(f"<{len(data) // 4}f", data))
