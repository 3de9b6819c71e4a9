"""A backend elsewhere, over a connection that may break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import structs

from llama_backend.client.stream_position import StreamPosition
from llama_backend.errors import BackendError, ModelNotFound, NotFound, PodPending, Unreachable
from llama_backend.wire.api import OURS
from llama_chat.backends.resume import RESUMABLE_ERRORS, Resume

if TYPE_CHECKING:
    from llama_backend.client.http_client import Client
    from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
    from llama_backend.wire.status import BackendStatus
    from llama_chat.backends.tunnel import Route, Stage, StageListener
    from llama_chat.settings import Settings


class RemoteBackend:
    """An AttachedBackend behind a route, which is opened for the first request and again where it broke."""

    is_local = False

    def __init__(self, settings: Settings, route: Route, target_name: str) -> None:
        """`target_name` is how the status line calls this backend."""
        self.target_name = target_name
        self._settings = settings
        self._route = route
        self._open_client: Client | None = None
        self._opening = asyncio.Lock()
        self._was_reached = False
        self._listener: StageListener | None = None
        self._default_model: str | None = None
        """The first model of another kind of server; empty where the server is ours, None before it was asked."""

    @property
    def model(self) -> str:
        """The model to ask for; empty leaves the choice to the backend."""
        return self._settings.model or ""

    def report_stages(self, listener: StageListener) -> None:
        """As AttachedBackend.report_stages."""
        self._listener = listener

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As Client.chat; where the connection breaks, the answer is continued (see `Resume`)."""
        request, position = as_logged(request, self._settings), StreamPosition()
        resume, is_complete = Resume(position), False
        try:
            while not is_complete:
                try:
                    async with self._client() as client:
                        request = await self._with_model(client, request)
                        async with aclosing(client.chat(request, position)) as deltas:
                            async for delta in deltas:
                                self._note_delta(resume)
                                yield delta
                    is_complete = True
                except RESUMABLE_ERRORS as error:
                    await resume.wait(error, self._was_reached, self._report_retry)
        finally:
            if not is_complete:
                await self._stop(position)

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        async with self._client() as client:
            return await client.count(messages)

    async def models(self) -> list[ModelInfo]:
        async with self._client() as client:
            return await client.models()

    async def status(self) -> BackendStatus:
        async with self._client() as client:
            return await client.status()

    async def clear_kv_states(self) -> None:
        """Does nothing: a backend elsewhere has KV states of other people too, and cannot delete only those of one."""

    async def aclose(self) -> None:
        """Closes the connection and its route; the next request opens both again."""
        client, self._open_client = self._open_client, None
        if client is not None:
            await client.aclose()
        await self._route.close()

    async def _with_model(self, client: Client, request: ChatRequest) -> ChatRequest:
        """The request with the name of a model, which other kinds of servers may require."""
        if request.model:
            return request
        if self._default_model is None:
            with suppress(NotFound, ModelNotFound):
                models = await client.models()
                self._default_model = "" if not models or models[0].owned_by == OURS else models[0].id
        return structs.replace(request, model=self._default_model or "")

    def _note_delta(self, resume: Resume) -> None:
        self._was_reached = True
        if resume.received():
            self._report("reached", "")

    def _report_retry(self, error: BackendError) -> None:
        self._report("waiting for a pod" if isinstance(error, PodPending) else self._connecting, error.message)

    async def _stop(self, position: StreamPosition) -> None:
        """Tells the server that nobody will continue the answer; if that fails, the server finds out by itself."""
        if self._open_client is not None and position.grace is not None:
            with suppress(BackendError):
                await self._open_client.stop(position)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        """The open client; when its connection breaks, it is closed together with the route."""
        client = await self._connected()
        try:
            yield client
        except Unreachable:
            if self._open_client is client:
                await self.aclose()
            raise
        except BackendError:
            self._was_reached = True
            raise
        self._was_reached = True

    async def _connected(self) -> Client:
        async with self._opening:
            if self._open_client is None:
                from llama_backend.client.http_client import Client

                self._report(self._connecting, "")
                self._open_client = Client(*await self._route.open(self._report))
            return self._open_client

    @property
    def _connecting(self) -> Stage:
        return "reconnecting" if self._was_reached else "connecting"

    def _report(self, stage: Stage, reason: str) -> None:
        if self._listener is not None:
            self._listener(stage, reason)


def as_logged(request: ChatRequest, settings: Settings) -> ChatRequest:
    """The request; where the history does not keep the chat, the backend is told not to store it either."""
    return request if settings.log else structs.replace(request, store=False)
