"""`llama-chat status`: how the backend is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from llama_backend.errors import ModelNotFound, NotFound, Unreachable
from llama_chat.cli import options, output
from llama_chat.cli.options import Setup
from llama_chat.cli.tuning import tuning_rows
from llama_chat.cli.units import duration_text, size_text
from llama_chat.errors import ChatError

if TYPE_CHECKING:
    from llama_backend.api import BackendStatus, KVStoreStatus
    from llama_backend.client import Address


@click.command("status")
@options.url
@options.as_json
def command(json: bool, **params: Any) -> None:
    """Show how the backend is; exit 3 where none runs. Starts nothing."""
    setup = options.load(params)
    address = _address(setup)
    status = ask_status(address, options.api_key(setup.settings))
    if json:
        import msgspec

        output.write_json({"address": str(address), **msgspec.to_builtins(status)})
    else:
        output.write(output.table(_rows(str(address), status)))


def _address(setup: Setup) -> Address:
    from llama_backend.client import Address
    from llama_backend.launch import find
    from llama_chat.local import place

    if setup.settings.url:
        return Address(url=setup.settings.url)
    found = find(place(setup.paths))
    if found is None:
        raise Unreachable("no backend is running; `llama-chat ask` and `llama-chat` start one")
    return found


def ask_status(address: Address, api_key: str | None = None) -> BackendStatus:
    """What the backend there says of itself."""
    import asyncio

    from llama_backend.client import Client

    async def asked() -> BackendStatus:
        async with Client(address, None if address.is_local else api_key, wait=0) as client:
            return await client.status()

    try:
        return asyncio.run(asked())
    except (NotFound, ModelNotFound) as error:
        raise ChatError(f"the server at {address} does not tell how it is; `llama-chat models` may work") from error


def _rows(address: str, status: BackendStatus) -> list[tuple[str, ...]]:
    facts: dict[str, object] = {
        "state": _state(status),
        "model": status.model,
        "file": status.path,
        "address": address,
        "pid": status.pid or None,
        "log": status.log,
        "context": f"{status.context} tokens" if status.context else None,
        "slots": f"{status.slots}: {status.running} at work, {status.waiting} waiting" if status.slots else None,
        **(tuning_rows(status.tuning) if status.tuning else {"threads": status.threads}),
        "uptime": duration_text(status.uptime),
        "memory": size_text(status.rss) if status.rss else None,
        "KV states": _kv_states(status.kv_store) if status.kv_store else None,
        "restarts": status.restarts or None,
        "version": status.version or None,
    }
    return [(name, str(value)) for name, value in facts.items() if value is not None]


def _kv_states(store: KVStoreStatus) -> str:
    on_disk = f", {size_text(store.disk_bytes)} of {size_text(store.disk_limit)} on disk" if store.folder else ""
    return f"{store.states}: {size_text(store.ram_bytes)} of {size_text(store.ram_limit)} in RAM{on_disk}"


def _state(status: BackendStatus) -> str:
    if status.state == "loading":
        return f"loading, {status.progress:.0%}"
    return f"{status.state}: {status.reason}" if status.reason else status.state
