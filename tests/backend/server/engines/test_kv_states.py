"""What the server passes on about KV states: requests that store none, orders to drop them, and how many there are."""

from __future__ import annotations

from tests.backend.server.conftest import Serve
from tests.support.server.harness import CHAT, ServerProcess, chat, free_port
from tests.support.wait import until


def test_states_are_dropped_over_the_socket(serve: Serve) -> None:
    server = serve()
    assert server.status().kv_store is None
    with server.http() as client:
        assert client.delete("/v1/kv-states").status_code == 204

    def told() -> bool:
        return server.status().kv_store is not None

    until(told, what="the news of the store")


def test_states_of_all_are_not_dropped_over_tcp(serve: Serve) -> None:
    server = serve(host="127.0.0.1", port=free_port())
    with server.tcp() as client:
        assert client.delete("/v1/kv-states").status_code == 403


def test_a_request_may_ask_to_be_stored_or_not(shared: ServerProcess) -> None:
    with shared.http() as client:
        for store in (True, False, None):
            assert client.post(CHAT, json=chat(store=store)).status_code == 200
        assert client.post(CHAT, json=chat(store="no")).status_code == 400
