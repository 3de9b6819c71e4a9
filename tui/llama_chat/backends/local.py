"""The backend of this machine, which is started where none is running."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from llama_backend.errors import ModelNotFound, Unavailable, Unreachable
from llama_chat.backends.launching import clear_kv_states, runtime_files, start
from llama_chat.backends.remote import as_logged
from llama_chat.backends.targets import LOCAL
from llama_chat.paths import Paths

if TYPE_CHECKING:
    from llama_backend.client.http_client import Client
    from llama_backend.models.installed import InstalledModel
    from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
    from llama_backend.wire.status import BackendStatus
    from llama_chat.backends.tunnel import StageListener
    from llama_chat.settings import Settings


class LocalBackend:
    """An AttachedBackend that finds or starts its server when it is first needed."""

    target_name = LOCAL
    is_local = True

    def __init__(self, settings: Settings, paths: Paths, model: InstalledModel) -> None:
        self._settings = settings
        self._paths = paths
        self._model = model
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    @property
    def model(self) -> str:
        """The model to ask for."""
        return self._model.name

    def report_stages(self, listener: StageListener) -> None:
        """Reports nothing: a Unix socket is connected at once or not at all."""

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As Client.chat.

        A backend that has ended before the answer begins is started again, once. One that serves another model is
        replaced, unless it is busy.
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
                await self._stop_idle(await (await self._connected()).status())
        await self.aclose()
        async with aclosing((await self._connected()).chat(request)) as deltas:
            async for delta in deltas:
                yield delta

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        return await (await self._connected()).count(messages)

    async def models(self) -> list[ModelInfo]:
        return await (await self._connected()).models()

    async def status(self) -> BackendStatus:
        """As Client.status; a backend with another model is replaced first, unless it is busy."""
        found = await (await self._connected()).status()
        if found.model == self.model or self.model in found.models:
            return found
        await self._stop_idle(found)
        await self.aclose()
        return await (await self._connected()).status()

    async def clear_kv_states(self) -> None:
        """Deletes the KV states of all conversations, without starting a backend for that."""
        await clear_kv_states(self._settings, self._paths)

    async def aclose(self) -> None:
        """Closes the connection; the next request opens a new one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _stop_idle(self, found: BackendStatus) -> None:
        """Stops the backend, which serves another model; raises Unavailable while it is busy."""
        from llama_backend.client.launch import stop

        if found.active or not await asyncio.to_thread(stop, runtime_files(self._paths), found.pid):
            raise Unavailable(f"the backend is busy with {found.model}; try again later, or use that model")

    async def _connected(self) -> Client:
        async with self._opening:
            if self._client is None:
                self._client = await asyncio.to_thread(self._open)
            return self._client

    def _open(self) -> Client:
        """Starts the server before the HTTP client is imported, so that the model loads meanwhile.

        Blocks while the process starts, not while its model loads.
        """
        address = start(self._settings, self._paths, self._model)
        from llama_backend.client.http_client import Client

        return Client(address)
