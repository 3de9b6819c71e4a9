"""`llama-chat status`: the state of the backend."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from llama_backend.errors import ModelNotFound, NotFound, Unreachable
from llama_chat.backends.targets import find_target
from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.display.tuning_rows import tuning_rows
from llama_chat.cli.display.units import duration_text, size_text
from llama_chat.cli.options import Setup
from llama_chat.errors import ChatError

if TYPE_CHECKING:
    from llama_backend.client.http_client import Address
    from llama_backend.client.protocols import Backend
    from llama_backend.wire.status import BackendStatus, KVStoreStatus


@click.command("status")
@options.elsewhere
@options.as_json
def command(json: bool, **params: Any) -> None:
    """Show the state of the backend.

    It never starts a backend. If none is running, the exit code is 3.
    """
    setup = options.load(params)
    elsewhere = options.remote(setup.settings)
    address = str(find_target(setup.settings) or _local(setup))
    status = ask_status(elsewhere, address) if elsewhere else local_status(setup)
    if json:
        import msgspec

        output.print_json({"address": address, **msgspec.to_builtins(status)})
    else:
        output.print_result(output.format_table(status_rows(address, status)))


def _local(setup: Setup) -> Address:
    """Where the backend of this machine listens; raises Unreachable where none runs."""
    from llama_backend.client.launch import find
    from llama_chat.backends.launching import runtime_files

    found = find(runtime_files(setup.paths))
    if found is None:
        raise Unreachable("no backend is running; `llama-chat ask` and `llama-chat` start one")
    return found


def local_status(setup: Setup) -> BackendStatus:
    """What the backend of this machine says about itself."""
    from llama_backend.client.http_client import Client

    address = _local(setup)
    return ask_status(Client(address, wait=0), str(address))


def ask_status(backend: Backend, address: str) -> BackendStatus:
    """What the backend at that address says about itself; the connection is closed."""
    import asyncio

    async def asked() -> BackendStatus:
        async with aclosing(backend):
            return await backend.status()

    try:
        return asyncio.run(asked())
    except (NotFound, ModelNotFound) as error:
        raise ChatError(
            f"the server at {address} does not say what state it is in; `llama-chat models` may work"
        ) from error


def status_rows(address: str, status: BackendStatus) -> list[tuple[str, ...]]:
    """The state as rows of a name and a value."""
    facts: dict[str, object] = {
        "state": _state(status),
        "model": status.model,
        "file": status.path,
        "address": address,
        "pid": status.pid or None,
        "log": status.log,
        "context": f"{status.context} tokens" if status.context else None,
        "slots": f"{status.slots}: {status.running} busy, {status.waiting} requests waiting" if status.slots else None,
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
