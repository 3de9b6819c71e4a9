"""The connection to a backend elsewhere, over a road that may break."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import structs

from llama_backend.client.stream_position import StreamPosition
from llama_backend.errors import (
    BackendError,
    ConnectionLost,
    ModelNotFound,
    NotFound,
    PodPending,
    Unavailable,
    Unreachable,
)
from llama_backend.wire.api import OURS
from llama_chat.backends.retry import Backoff

if TYPE_CHECKING:
    from llama_backend.client.http_client import Client
    from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
    from llama_backend.wire.status import BackendStatus
    from llama_chat.backends.tunnel import Road, Stage, Tell
    from llama_chat.config import Settings

_MARGIN_SECONDS = 10.0
"""How much longer than a server keeps an answer it is asked for it; its clock begins when it notices the break."""
_POD_SECONDS = 300.0
"""How long a pod may take to be scheduled and to start."""


class RemoteConnection:
    """A Backend (see `llama_backend.client.protocols`) at the end of a road, which is opened when it is first needed.

    Where the road breaks, it is opened again.
    """

    is_local = False

    def __init__(self, settings: Settings, road: Road, where: str) -> None:
        """`where` is what to call the place on the screen."""
        self.where = where
        self._settings = settings
        self._road = road
        self._open_client: Client | None = None
        self._opening = asyncio.Lock()
        self._was_reached = False
        self._listener: Tell | None = None
        self._their_model: str | None = None
        """The first model of a server of another make; empty with ours, None before it was asked."""

    @property
    def model(self) -> str:
        """The name to ask for; empty leaves it to the backend."""
        return self._settings.model or ""

    def listen(self, tell: Tell) -> None:
        """Has `tell` hear of what happens on the road."""
        self._listener = tell

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As Client.chat; where the connection breaks, the answer is taken up where it was.

        Servers that do not keep answers are asked again as long as nothing has come.
        """
        request, position, backoff = as_logged(request, self._settings), StreamPosition(), Backoff()
        is_complete = False
        try:
            while not is_complete:
                try:
                    async with self._client() as client:
                        request = await self._named(client, request)
                        async with aclosing(client.chat(request, position)) as deltas:
                            async for delta in deltas:
                                self._progress(backoff)
                                yield delta
                    is_complete = True
                except (Unreachable, Unavailable, NotFound) as error:
                    await self._recover(backoff, position, error)
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
        """Nothing: a backend elsewhere keeps the KV states of others as well, and does not tell whose they are."""

    async def aclose(self) -> None:
        """Ends the connection; the next call makes a new one."""
        client, self._open_client = self._open_client, None
        if client is not None:
            await client.aclose()
        await self._road.close()

    async def _named(self, client: Client, request: ChatRequest) -> ChatRequest:
        """The request with a model's name: ours takes one without, servers of other makes may not."""
        if request.model:
            return request
        if self._their_model is None:
            with suppress(NotFound, ModelNotFound):
                models = await client.models()
                self._their_model = "" if not models or models[0].owned_by == OURS else models[0].id
        return structs.replace(request, model=self._their_model or "")

    def _progress(self, backoff: Backoff) -> None:
        self._was_reached = True
        if backoff.is_trying:
            backoff.succeed()
            self._tell("reached", "")

    async def _recover(self, backoff: Backoff, position: StreamPosition, error: BackendError) -> None:
        """Waits before another try; raises where that does not help."""
        if position.last and isinstance(error, NotFound):
            raise ConnectionLost("the connection broke, and the backend does not have the answer any more") from error
        if not self._may_pass(position, error):
            raise error
        if position.grace is not None:
            backoff.patience = position.grace + _MARGIN_SECONDS
        if isinstance(error, PodPending):
            backoff.patience = _POD_SECONDS
            self._tell("waiting for a pod", error.message)
        else:
            self._tell("reconnecting" if self._was_reached else "connecting", error.message)
        await backoff.pause(error)

    def _may_pass(self, position: StreamPosition, error: BackendError) -> bool:
        """Whether another try may help: not where nobody ever answered, nor where the server does not keep the rest."""
        if not position.can_go_on or position.has_begun:
            return position.can_go_on
        return isinstance(error, ConnectionLost | PodPending) or (self._was_reached and isinstance(error, Unreachable))

    async def _stop(self, position: StreamPosition) -> None:
        """Tells the server that nobody comes back for the answer; where that fails it finds out by itself."""
        if self._open_client is not None and position.grace is not None:
            with suppress(BackendError):
                await self._open_client.stop(position)

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[Client]:
        """The client in use; one whose connection breaks is given up, with its road."""
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

                self._tell("reconnecting" if self._was_reached else "connecting", "")
                self._open_client = Client(*await self._road.open(self._tell))
            return self._open_client

    def _tell(self, stage: Stage, reason: str) -> None:
        if self._listener is not None:
            self._listener(stage, reason)


def as_logged(request: ChatRequest, settings: Settings) -> ChatRequest:
    """The request; what the history does not keep is not stored in the backend either."""
    return request if settings.log else structs.replace(request, store=False)
