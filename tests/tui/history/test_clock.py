"""A clock that jumps by years: nothing is lost, and what came later stays later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from llama_chat.cli.display.units import time_text
from llama_chat.history import History
from llama_chat.local_time import local_time

YEAR = 366 * 86400.0
NOW = 1.8e9


@pytest.fixture
def history() -> Iterator[History]:
    with closing(History(Path(":memory:"))) as opened:
        yield opened


def at(monkeypatch: pytest.MonkeyPatch, moment: float) -> None:
    monkeypatch.setattr("time.time", lambda: moment)


@pytest.mark.parametrize("jump", [30 * YEAR, -30 * YEAR, 1e15, -1e15])
def test_messages_and_conversations_keep_their_order(
    history: History, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    at(monkeypatch, NOW)
    first, second = history.create(title="first"), history.create(title="second")
    parent = history.add(first.id, "user", "0", parent_id=None)
    history.add(second.id, "user", "x", parent_id=None)
    for number, moment in enumerate((NOW + jump, NOW + 1, NOW - jump, NOW + 2), start=1):
        at(monkeypatch, moment)
        parent = history.add(first.id, "assistant", str(number), parent_id=parent.id)
    assert [message.text for message in history.messages(first.id)] == ["0", "1", "2", "3", "4"]
    latest = history.latest()
    assert latest is not None
    assert latest.id == first.id
    at(monkeypatch, NOW + 3)
    history.add(second.id, "user", "y", parent_id=None)
    assert [found.id for found in history.conversations()] == [second.id, first.id]


def test_a_conversation_of_the_future_does_not_stay_the_latest(
    history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, NOW + 30 * YEAR)
    history.add(history.create().id, "user", "from the future", parent_id=None)
    at(monkeypatch, NOW)
    now = history.create()
    history.add(now.id, "user", "now", parent_id=None)
    latest = history.latest()
    assert latest is not None
    assert latest.id == now.id


@pytest.mark.parametrize("moment", [float("inf"), -float("inf"), 1e300, -1e300, 1e15, -1e15, 0.0, -1.0])
def test_every_moment_can_be_shown(moment: float) -> None:
    assert len(time_text(moment)) >= len("1-1-1 00:00")
    assert local_time(moment).year in range(1, 10000)
