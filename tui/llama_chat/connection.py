"""The backend that the settings name: one elsewhere, or the local one, which is started where it is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from llama_backend.errors import ModelNotFound, Unavailable, Unreachable
from llama_chat.errors import ConfigError
from llama_chat.local import place, start
from llama_chat.paths import Paths

if TYPE_CHECKING:
    from llama_backend.api import BackendStatus, ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
    from llama_backend.client import Address, Client
    from llama_backend.models import InstalledModel
    from llama_chat.config import Settings


class Connection:
    """A Backend (see `llama_backend.client`) that finds or starts its server when it is first needed."""

    def __init__(self, settings: Settings, paths: Paths, model: InstalledModel | None, api_key: str | None) -> None:
        """`model` is what a local backend serves; `api_key` goes to a backend elsewhere only."""
        self._settings = settings
        self._paths = paths
        self._model = model
        self._api_key = api_key
        self._address: Address | None = None
        self._client: Client | None = None
        self._opening = asyncio.Lock()

    @property
    def model(self) -> str:
        """The name to ask for; a backend elsewhere chooses where the settings do not."""
        return self._model.name if self._model else self._settings.model or ""

    @property
    def is_local(self) -> bool:
        return self._model is not None

    def start(self) -> Address:
        """The backend's address, once something listens there; blocks for as long as a process takes to start."""
        if self._address is None:
            self._address = self._locate()
        return self._address

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        """As Client.chat; what is not logged is not stored in the backend either.

        A local backend that is gone before the answer begins is started again, once; so is one that serves another
        model, unless it is at work.
        """
        begun = False
        request = request if self._settings.log else structs.replace(request, store=False)
        try:
            async with aclosing((await self._connected()).chat(request)) as deltas:
                async for delta in deltas:
                    begun = True
                    yield delta
            return
        except (Unreachable, ModelNotFound) as error:
            if begun or not self.is_local:
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
        """As Client.status; a local backend that serves another model is replaced first, unless it is at work."""
        found = await (await self._connected()).status()
        if not self.is_local or found.model == self.model:
            return found
        await self._dismiss(found)
        await self.aclose()
        return await (await self._connected()).status()

    async def aclose(self) -> None:
        """Ends the connection; the next call makes a new one."""
        client, self._client, self._address = self._client, None, None
        if client is not None:
            await client.aclose()

    def _locate(self) -> Address:
        if self._model is None:
            from llama_backend.client import Address

            return Address(url=self._settings.url or "")
        return start(self._settings, self._paths, self._model)

    async def _dismiss(self, found: BackendStatus) -> None:
        """Ends the local backend, which serves another model; raises Unavailable where somebody is using it."""
        from llama_backend.launch import stop

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
        from llama_backend.client import Client

        return Client(address, None if self.is_local else self._api_key)


def read_key(file: str) -> str:
    """The first API key in a file with one key a line and comments after `#`; raises ConfigError."""
    try:
        lines = Path(file).expanduser().read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file with the API key cannot be read: {error}") from error
    keys = [line.strip() for line in lines if line.strip() and line[0] != "#"]
    if not keys:
        raise ConfigError(f"the file {file} holds no API key")
    return keys[0]
