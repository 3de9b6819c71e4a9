"""The roads to a backend elsewhere: a URL, or a port-forward into a cluster."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from llama_chat.backends.key_lookup import find_key, first_key
from llama_chat.backends.targets import KubeTarget, Target
from llama_chat.errors import KubeError

if TYPE_CHECKING:
    from llama_backend.client.http_client import Address
    from llama_chat.backends.kubectl import Kubectl, PortForward

Stage = Literal["connecting", "waiting for a pod", "reconnecting", "reached"]
Tell = Callable[[Stage, str], None]
"""Hears how far a connection is, and why it is no further."""

_PATIENCE_SECONDS = 2.0
"""A port-forward that takes longer waits for a pod."""


class Road(Protocol):
    """A way to a backend that can be opened, and opened again where it broke."""

    async def open(self, tell: Tell) -> tuple[Address, str | None]:
        """Where the backend answers, and the key to send; raises ChatError and BackendError."""
        ...

    async def close(self) -> None: ...


class UrlRoad:
    """A backend that anybody with its URL reaches."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._key = key

    async def open(self, tell: Tell) -> tuple[Address, str | None]:
        from llama_backend.client.http_client import Address

        return Address(url=self._url), self._key

    async def close(self) -> None: ...


class KubeRoad:
    """A Service in a cluster, for as long as a `kubectl port-forward` runs."""

    def __init__(self, target: KubeTarget, key_file: str | None) -> None:
        from llama_chat.backends.kubectl import Kubectl

        self._target = target
        self._key_file = key_file
        self._kubectl: Kubectl = Kubectl(target)
        self._key: str | None = None
        self._port = target.port
        self._forward: PortForward | None = None

    async def open(self, tell: Tell) -> tuple[Address, str | None]:
        from llama_backend.client.http_client import Address

        await self.close()
        self._key = self._key or await self._find_key()
        self._port = self._port or await self._service_port()
        patience = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, tell, "waiting for a pod", "")
        try:
            self._forward = await self._kubectl.forward(self._target.service, self._port)
        finally:
            patience.cancel()
        return Address(url=f"http://127.0.0.1:{self._forward.port}"), self._key

    async def close(self) -> None:
        forward, self._forward = self._forward, None
        if forward is not None:
            await forward.aclose()

    async def _service_port(self) -> int:
        found = json.loads(await self._kubectl.ask("get", "service", self._target.service, "--output", "json"))
        ports = found.get("spec", {}).get("ports") or []
        named = [port["port"] for port in ports if port.get("name") in ("http", "https")]
        if not ports:
            raise KubeError(f"the Service {self._target.service} has no port")
        return int((named or [ports[0]["port"]])[0])

    async def _find_key(self) -> str | None:
        """The key of the Secret that the target names, or where that may not be read, one from elsewhere."""
        target = self._target
        if target.secret is None or target.key.file or target.key.variable:
            return find_key(target, self._key_file)
        try:
            return await self._secret_key(target.secret)
        except KubeError:
            if key := find_key(target, self._key_file):
                return key
            raise

    async def _secret_key(self, name: str) -> str:
        """The first key in a Secret; it is on no command line, only the Secret's name is."""
        field = self._target.secret_field.replace(".", r"\.")
        encoded = await self._kubectl.ask("get", "secret", name, "--output", f"jsonpath={{.data.{field}}}")
        key = first_key(base64.b64decode(encoded).decode("ascii", "replace"))
        if key is None:
            raise KubeError(f"the Secret {name} holds no API key in its field {self._target.secret_field}")
        return key


def make_road(target: Target, key_file: str | None) -> Road:
    """The road to `target`; raises ConfigError where the key of a URL cannot be had."""
    if isinstance(target, KubeTarget):
        return KubeRoad(target, key_file)
    return UrlRoad(target.url, find_key(target, key_file))
