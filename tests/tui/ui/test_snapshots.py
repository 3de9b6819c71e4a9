"""A few pictures of the whole screen; `pytest tests/tui/ui/test_snapshots.py --snapshot-update` takes them anew."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from llama_backend.errors import EngineDied
from llama_chat.history import History
from llama_chat.ui.app import ChatApp
from llama_chat.ui.chat_options import ChatOptions
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.widgets.status_line import StatusLine
from tests.support.ui.sample import QUESTION, saved_conversation
from tests.support.ui.scripted_backend import ScriptedBackend

OPTIONS = ChatOptions(model="SmolLM2-135M-Instruct", theme="textual-dark")
Compare = Callable[..., bool]


@pytest.fixture(autouse=True)
def pinned_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would change from one picture to the next."""
    monkeypatch.setattr(PromptArea, "cursor_blink", False)


async def settled(pilot: Pilot[None]) -> None:
    """Waits until the context is counted, which is the last thing to happen."""
    for _ in range(500):
        lines = pilot.app.query(StatusLine)
        if lines and lines.first().status.reading.is_exact and not lines.first().status.is_answering:
            break
        await pilot.pause(0.02)
    await pilot.pause()


def test_an_empty_chat(snap_compare: Compare) -> None:
    app = ChatApp(ScriptedBackend(), History(Path(":memory:")), OPTIONS)
    assert snap_compare(app, terminal_size=(80, 24), run_before=settled)


@pytest.mark.parametrize("size", [(80, 30), (40, 12)], ids=["normal", "small"])
def test_a_conversation(snap_compare: Compare, size: tuple[int, int]) -> None:
    history, conversation = saved_conversation()
    app = ChatApp(ScriptedBackend(), history, OPTIONS, conversation)
    assert snap_compare(app, terminal_size=size, run_before=settled)


def test_an_error_beside_what_came(snap_compare: Compare) -> None:
    backend = ScriptedBackend(answers=[["On average ", EngineDied("the engine ended with signal 9")]])
    app = ChatApp(backend, History(Path(":memory:")), OPTIONS)

    async def ask(pilot: Pilot[None]) -> None:
        await settled(pilot)
        pilot.app.query_one(PromptArea).put(QUESTION)
        await pilot.press("enter")
        await pilot.pause(0.2)
        await settled(pilot)

    assert snap_compare(app, terminal_size=(80, 24), run_before=ask)


def test_the_saved_conversations(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    history, _ = saved_conversation()
    app = ChatApp(ScriptedBackend(), history, OPTIONS)

    async def open_list(pilot: Pilot[None]) -> None:
        await settled(pilot)
        await pilot.press("ctrl+r")
        await pilot.pause()

    assert snap_compare(app, terminal_size=(80, 24), run_before=open_list)
