from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llama_backend.errors import (
    BackendError,
    EngineDied,
    ModelUnreadable,
    NotFound,
    PodPending,
    Unavailable,
    Unreachable,
)
from llama_backend.wire.api import ChatMessage, ChatRequest
from llama_backend.wire.status import BackendStatus, State
from llama_chat.ui.backend_state import BackendState
from llama_chat.ui.watched_backend import WatchedBackend
from tests.support.ui.scripted_backend import READY, ScriptedBackend
from tests.support.wait import until_async

HI = [ChatMessage("user", "hi")]


def status(state: State, **facts: Any) -> BackendStatus:
    return BackendStatus(state=state, model="m", **facts)


class Watch:
    """A watched backend and the states that it reported."""

    def __init__(self, backend: ScriptedBackend) -> None:
        self.states: list[BackendState] = []
        self.backend = WatchedBackend(backend, self.states.append)

    @property
    def phases(self) -> list[str]:
        return [state.phase for state in self.states]

    async def answer(self) -> str:
        return "".join([delta.text async for delta in self.backend.chat(ChatRequest(messages=HI))])

    async def settle(self) -> None:
        await until_async(lambda: self.backend.state.phase in ("ready", "failed"))


async def test_tells_every_state_until_ready() -> None:
    states: list[BackendStatus | BackendError] = [
        status("loading"),
        status("loading", progress=0.5),
        status("loading", progress=0.5),
        status("ready", context=4096),
    ]
    watch = Watch(ScriptedBackend(states=states))
    watch.backend.wake()
    await watch.settle()
    assert watch.states == [
        BackendState("loading", model="m"),
        BackendState("loading", progress=0.5, model="m"),
        BackendState("ready", model="m", context=4096),
    ]


async def test_an_answer_waits_until_ready() -> None:
    backend = ScriptedBackend(states=[status("loading"), READY])
    watch = Watch(backend)
    assert await watch.answer() == "You said: hi"
    assert watch.phases == ["loading", "ready"]


async def test_a_waiting_answer_that_is_stopped_leaves_the_watch_alone() -> None:
    backend = ScriptedBackend(states=[status("loading")])
    watch = Watch(backend)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(watch.answer(), 0.05)
    backend.states = [READY]
    await watch.settle()
    assert backend.requests == []


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (status("failed", reason="no model"), ModelUnreadable),
        (status("draining"), Unavailable),
        (Unreachable("nobody answers"), Unreachable),
    ],
)
async def test_what_hinders_is_raised_and_the_next_request_looks_again(
    state: BackendStatus | BackendError, error: type[BackendError]
) -> None:
    backend = ScriptedBackend(states=[state])
    watch = Watch(backend)
    with pytest.raises(error):
        await watch.answer()
    assert watch.phases == ["failed"]
    assert backend.closed == 1
    backend.states = [READY]
    assert await watch.answer() == "You said: hi"


@pytest.mark.parametrize(
    ("model", "shown"), [("scripted", "scripted"), ("owner/name", "owner/name"), ("/models/a.gguf", "a.gguf")]
)
async def test_a_server_without_a_status_is_asked_for_its_models(model: str, shown: str) -> None:
    watch = Watch(ScriptedBackend(states=[NotFound("no such path")], model=model))
    assert await watch.answer() == "You said: hi"
    assert watch.backend.state == BackendState("ready", model=shown)


@pytest.mark.parametrize(("error", "closed"), [(EngineDied("signal 9"), 0), (Unreachable("broken"), 1)])
async def test_after_a_break_the_backend_is_watched_again(error: BackendError, closed: int) -> None:
    backend = ScriptedBackend(answers=[["half", error]])
    watch = Watch(backend)
    with pytest.raises(type(error)):
        await watch.answer()
    assert watch.phases == ["ready", "restarting"]
    await watch.settle()
    assert watch.phases == ["ready", "restarting", "ready"]
    assert backend.closed == closed


async def test_a_silent_answer_makes_it_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_chat.ui.watched_backend.SILENCE_SECONDS", 0.01)
    backend = ScriptedBackend(answers=[["late"]], gate=asyncio.Event())
    watch = Watch(backend)
    answer = asyncio.create_task(watch.answer())
    await until_async(lambda: backend.requests)
    backend.states = [status("loading"), READY]
    await until_async(lambda: len(watch.states) == 3)
    assert watch.phases == ["ready", "loading", "ready"]
    assert backend.gate
    backend.gate.set()
    assert await answer == "late"


async def test_counting_passes_through_and_notes_a_break() -> None:
    backend = ScriptedBackend()
    watch = Watch(backend)
    watch.backend.wake()
    await watch.settle()
    assert (await watch.backend.count(HI)).count == 1
    backend.count_error = Unreachable("the idle backend has ended")
    with pytest.raises(Unreachable):
        await watch.backend.count(HI)
    await watch.settle()
    assert watch.phases == ["ready", "restarting", "ready"]


async def test_closing_ends_the_watch() -> None:
    backend = ScriptedBackend(states=[status("loading")])
    watch = Watch(backend)
    watch.backend.wake()
    await asyncio.sleep(0)
    await watch.backend.aclose()
    assert backend.closed == 1


async def test_a_backend_elsewhere_is_tried_until_it_can_be_reached() -> None:
    states: list[BackendStatus | BackendError] = [
        PodPending("Current status=Pending"),
        Unreachable("no route"),
        status("loading", progress=0.5),
        status("ready"),
    ]
    watch = Watch(ScriptedBackend(states=states, is_local=False))
    assert await watch.answer() == "You said: hi"
    assert [(state.phase, state.reason) for state in watch.states] == [
        ("waiting for a pod", "Current status=Pending"),
        ("connecting", "no route"),
        ("loading", ""),
        ("ready", ""),
    ]


async def test_what_happens_to_the_connection_is_shown() -> None:
    backend = ScriptedBackend(is_local=False)
    watch = Watch(backend)
    watch.backend.wake()
    await watch.settle()
    assert backend.listener is not None
    backend.listener("reconnecting", "the connection broke")
    backend.listener("reconnecting", "")
    assert watch.backend.state.reason == "the connection broke"
    backend.listener("waiting for a pod", "")
    backend.listener("reconnecting", "")
    backend.listener("reached", "")
    assert watch.phases == ["ready", "reconnecting", "waiting for a pod", "ready"]


async def test_after_a_break_elsewhere_it_reconnects() -> None:
    backend = ScriptedBackend(answers=[["half", Unreachable("broken")]], is_local=False)
    watch = Watch(backend)
    with pytest.raises(Unreachable):
        await watch.answer()
    await watch.settle()
    assert watch.phases == ["ready", "reconnecting", "ready"]


async def test_the_place_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_chat.ui.watched_backend.SILENCE_SECONDS", 0.01)
    waiting = [status("ready", waiting=number) for number in (3, 4, 1, 0)]
    backend = ScriptedBackend(states=[READY, *waiting], answers=[["late"]], gate=asyncio.Event())
    watch = Watch(backend)
    answer = asyncio.create_task(watch.answer())
    await until_async(lambda: [state.queued for state in watch.states] == [0, 3, 1, 0])
    assert backend.gate
    backend.gate.set()
    assert await answer == "late"
