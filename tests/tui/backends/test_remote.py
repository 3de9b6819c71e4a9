"""A backend elsewhere, at a URL."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from llama_backend.client.http_client import Address
from llama_backend.errors import ModelNotFound, Unreachable
from llama_chat.backends.remote import RemoteBackend
from llama_chat.backends.tunnel import Stage, StageListener
from llama_chat.settings import Settings
from tests.support.attaching import answer, attach
from tests.support.scripted_server import ScriptedServer


async def test_a_backend_that_never_answered_is_not_waited_for() -> None:
    async with aclosing(attach("http://127.0.0.1:9")) as backend:
        with pytest.raises(Unreachable, match="127"):
            await answer(backend)


async def test_a_model_that_is_not_there_is_not_asked_again(server: ScriptedServer) -> None:
    server.enqueue(status=404, error={"message": "no such model", "code": "model_not_found"})
    async with aclosing(attach(server.url)) as backend:
        with pytest.raises(ModelNotFound):
            await answer(backend)
    assert len(server.requests) == 1


async def test_the_key_goes_along(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_CHAT_API_KEY", "a key")
    async with aclosing(attach(server.url)) as backend:
        assert await answer(backend) == "Hello, world!"
    assert server.keys == ["Bearer a key"]


async def test_a_backend_elsewhere_keeps_the_states_of_others(server: ScriptedServer) -> None:
    async with aclosing(attach(server.url)) as backend:
        await backend.clear_kv_states()
        await backend.status()
    assert server.cleared == 0


async def test_a_connection_that_breaks_before_the_answer_is_made_again(server: ScriptedServer) -> None:
    server.enqueue(breaks=True)
    stages: list[Stage] = []
    async with aclosing(attach(server.url)) as backend:
        backend.report_stages(lambda stage, _: stages.append(stage))
        assert await answer(backend) == "Hello, world!"
    assert len(server.requests) == 2
    assert (stages[0], stages[-1]) == ("connecting", "reached")


async def test_a_backend_that_was_there_is_waited_for(server: ScriptedServer) -> None:
    urls = [server.url, "http://127.0.0.1:9", server.url]

    class MovingRoute:
        """Leads nowhere when it is opened for the second time."""

        async def open(self, report: StageListener) -> tuple[Address, str | None]:
            return Address(url=urls.pop(0)), None

        async def close(self) -> None: ...

    async with aclosing(RemoteBackend(Settings(), MovingRoute(), "h")) as backend:
        await backend.status()
        await backend.aclose()
        assert await answer(backend) == "Hello, world!"
    assert urls == []
