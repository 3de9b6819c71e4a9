"""The backend of this machine, which is started where it is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from llama_backend.errors import ModelNotFound, Unavailable, Unreachable
from llama_chat.backends.launching import clear_kv_states, place, start
from llama_chat.backends.remote import as_logged
from llama_chat.backends.targets import LOCAL
from llama_chat.paths import Paths

if TYPE_CHECKING:
    from llama_backend.client.http_client import Address, Client
    from llama_backend.models.installed import InstalledModel
    from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
    from llama_backend.wire.status import BackendStatus
    from llama_chat.backends.tunnel import Tell
    from llama_chat.config import Settings


class LocalConnection:
    """A Backend (see `llama_backend.client.protocols`) that finds or starts its server when it is first needed."""

    where = LOCAL
    is_local = True

    def __init__(self, settings: Settings, paths: Paths, model: InstalledModel) -> None:
        self._settings = settings
        self._paths = paths
        self._model = model
        self._address: Address | None = None
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    @property
    def model(self) -> str:
        """The name to ask for."""
        return self._model.name

    def listen(self, tell: Tell) -> None:
        """Nothing is told of a road that has no length."""

    def start(self) -> Address:
        """The backend's address, once something listens there; blocks for as long as a process takes to start."""
        if self._address is None:
            self._address = start(self._settings, self._paths, self._model)
        return self._address

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As Client.chat.

        A backend that is gone before the answer begins is started again, once; so is one that serves another model,
        unless it is at work.
        """
        begun = False
        request = as_logged(request, self._settings)
        try:
            async with aclosing((await self._connected()).chat(request)) as deltas:
                async for delta in deltas:
                    begun = True
                    yield delta
            return
        except (Unreachable, ModelNotFound) as error:
            if begun:
                raise
            if isinstance(error, ModelNotFound):
                await self._dismiss(await (await self._connected()).status())
        await self.aclose()
        async with aclosing((await self._connected()).chat(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        return await (await self._connected()).count(messages)

    async def models(self) -> list[ModelInfo]:
        return await (await self._connected()).models()

    async def status(self) -> BackendStatus:
        """As Client.status; a backend that serves another model is replaced first, unless it is at work."""
        found = await (await self._connected()).status()
        if found.model == self.model or self.model in found.models:
            return found
        await self._dismiss(found)
        await self.aclose()
        return await (await self._connected()).status()

    async def clear_kv_states(self) -> None:
        """Removes the KV states of all conversations, without starting a backend for that."""
        await clear_kv_states(self._settings, self._paths)

    async def aclose(self) -> None:
        """Ends the connection; the next call makes a new one."""
        client, self._client, self._address = self._client, None, None
        if client is not None:
            await client.aclose()

    async def _dismiss(self, found: BackendStatus) -> None:
        """Ends the backend, which serves another model; raises Unavailable where somebody is using it."""
        from llama_backend.client.launch import stop

        if found.active or not await asyncio.to_thread(stop, place(self._paths), found.pid):
            raise Unavailable(f"the backend is at work with {found.model}; try again later, or ask that model")

    async def _connected(self) -> Client:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._open)
            return self._client

    def _open(self) -> Client:
        """Starts before it imports, so that the backend loads its model meanwhile."""
        address = self.start()
        from llama_backend.client.http_client import Client

        return Client(address)
