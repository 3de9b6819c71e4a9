"""How a backend elsewhere is reached: directly at its URL, or through a port-forward into a cluster."""

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
StageListener = Callable[[Stage, str], None]
"""Is called with what happens to the connection, and with the reason where something holds it up."""

_PATIENCE_SECONDS = 2.0
"""A port-forward that takes longer is assumed to wait for a pod."""


class Route(Protocol):
    """A way to a backend; after a break it is opened again."""

    async def open(self, report: StageListener) -> tuple[Address, str | None]:
        """The address of the backend, and the API key to send; raises ChatError and BackendError."""
        ...

    async def close(self) -> None: ...


class UrlRoute:
    """The URL itself: nothing has to be opened."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._key = key

    async def open(self, report: StageListener) -> tuple[Address, str | None]:
        from llama_backend.client.http_client import Address

        return Address(url=self._url), self._key

    async def close(self) -> None: ...


class KubeTunnel:
    """A tunnel to a Service in a cluster, open as long as its `kubectl port-forward` runs."""

    def __init__(self, target: KubeTarget, key_file: str | None) -> None:
        from llama_chat.backends.kubectl import Kubectl

        self._target = target
        self._key_file = key_file
        self._kubectl: Kubectl = Kubectl(target)
        self._key: str | None = None
        self._port = target.port
        self._forward: PortForward | None = None

    async def open(self, report: StageListener) -> tuple[Address, str | None]:
        from llama_backend.client.http_client import Address

        await self.close()
        self._key = self._key or await self._find_key()
        self._port = self._port or await self._service_port()
        report_pod = asyncio.get_running_loop().call_later(_PATIENCE_SECONDS, report, "waiting for a pod", "")
        try:
            self._forward = await self._kubectl.forward(self._target.service, self._port)
        finally:
            report_pod.cancel()
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
            raise KubeError(f"the Service {self._target.service} has no ports")
        return int((named or [ports[0]["port"]])[0])

    async def _find_key(self) -> str | None:
        """The key in the Secret that the target names; where that may not be read, the one that `find_key` finds."""
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
        """The first key in a Secret. The key is never on a command line, only the name of the Secret is."""
        field = self._target.secret_field.replace(".", r"\.")
        encoded = await self._kubectl.ask("get", "secret", name, "--output", f"jsonpath={{.data.{field}}}")
        key = first_key(base64.b64decode(encoded).decode("ascii", "replace"))
        if key is None:
            raise KubeError(f"the Secret {name} contains no API key in its field {self._target.secret_field}")
        return key


def make_route(target: Target, key_file: str | None) -> Route:
    """The route to `target`; raises ConfigError where the API key for a URL cannot be read."""
    if isinstance(target, KubeTarget):
        return KubeTunnel(target, key_file)
    return UrlRoute(target.url, find_key(target, key_file))
