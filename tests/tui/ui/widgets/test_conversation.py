"""The scrolling list of messages."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.pilot import Pilot

from llama_chat.history import StoredMessage
from llama_chat.ui.widgets.conversation import ConversationView, batched
from llama_chat.ui.widgets.message import Message
from tests.support.wait import until_async


class ViewApp(App[None]):
    def compose(self) -> ComposeResult:
        yield ConversationView()

    @property
    def view(self) -> ConversationView:
        return self.query_one(ConversationView)

    @property
    def texts(self) -> list[str]:
        return [message.text for message in self.view.query_children(Message)]


def stored(number: int) -> list[StoredMessage]:
    roles = ("user", "assistant")
    return [StoredMessage(at, "c", None, roles[at % 2], f"message {at}", 0.0) for at in range(number)]


async def show(app: ViewApp, pilot: Pilot[None], number: int) -> None:
    await app.view.show(stored(number))
    await pilot.pause()


async def test_a_long_conversation_shows_its_end_first_and_then_all() -> None:
    app = ViewApp()
    async with app.run_test(size=(40, 20)) as pilot:
        await app.view.show(stored(100))
        assert app.texts[-1] == "message 99"
        assert len(app.texts) < 100
        await until_async(lambda: len(app.texts) == 100)
        await pilot.pause()
        assert app.texts == [f"message {at}" for at in range(100)]
        assert app.view.is_vertical_scroll_end


async def test_what_is_read_stays_in_place_while_earlier_messages_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_chat.ui.widgets.conversation.PAUSE_SECONDS", 0.3)
    app = ViewApp()
    async with app.run_test(size=(40, 20)) as pilot:
        await app.view.show(stored(200))
        await until_async(lambda: app.view.is_vertical_scroll_end and app.view.max_scroll_y)
        app.view.scroll_page_up(animate=False)
        await until_async(lambda: not app.view.is_vertical_scroll_end)
        assert len(app.texts) < 200
        before_end = app.view.max_scroll_y - app.view.scroll_y
        await until_async(lambda: len(app.texts) == 200)
        await pilot.pause()
        assert app.view.max_scroll_y - app.view.scroll_y == before_end > 0


async def test_what_fits_begins_at_the_top_whatever_the_size_was_before() -> None:
    app = ViewApp()
    async with app.run_test(size=(40, 3)) as pilot:
        await show(app, pilot, 4)
        assert app.view.is_vertical_scroll_end
        assert app.view.scroll_y > 0
        for height in (30, 25, 40):
            await pilot.resize_terminal(40, height)
            await pilot.pause(0.1)
            assert app.view.query(Message).first().region.y == 0


async def test_another_conversation_ends_the_filling() -> None:
    app = ViewApp()
    async with app.run_test(size=(40, 20)) as pilot:
        await app.view.show(stored(200))
        await app.view.show(stored(2))
        await pilot.pause(0.2)
        assert app.texts == ["message 0", "message 1"]


def test_only_the_first_batch_is_smaller() -> None:
    sizes = [len(batch) for batch in batched(stored(70), 30)]
    assert sizes == [10, 30, 30]
    assert list(batched([], 30)) == []
