"""Draws the pictures of the chat in `docs/pictures`: `python -m tests.support.ui.draw_pictures`.

Nothing here is taken from a running model: a backend that never answers stands behind the screens, so that the
pictures come out the same each time.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from unittest.mock import patch

from textual.pilot import Pilot

from llama_backend.wire.api import ChatMessage, ChatRequest, Delta, ModelInfo, TokenCount
from llama_backend.wire.status import BackendStatus
from llama_chat.history import Conversation, History
from llama_chat.ui.app import ChatApp
from llama_chat.ui.chat_options import ChatOptions
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.screens.history import HistoryScreen
from llama_chat.ui.widgets.status_line import StatusLine
from tests.support.ui.sample import ANSWER, QUESTION

FOLDER = next(parent for parent in Path(__file__).parents if (parent / "pyproject.toml").exists()) / "docs" / "pictures"
_MODEL = "llama2:7b-chat"
_CONTEXT = 4096
_TOKENS_PER_WORD = 2
_NOW = datetime(2026, 11, 20, 15, 30)
_EMBEDDED_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)

DRAFT = "And how cold is it down there?"
EARLIER = (
    (datetime(2025, 6, 3, 9, 0), "Write a packing list for a week in the Alps."),
    (datetime(2026, 10, 28, 18, 12), "Explain the difference between a process and a thread."),
    (datetime(2026, 11, 19, 11, 4), "Give this function a better name and say why."),
    (datetime(2026, 11, 20, 8, 51), "Name three rivers that cross a border."),
)

Act = Callable[[Pilot[None]], Awaitable[None]]


class StillBackend:
    """A backend that is ready, counts two tokens for a word, and never answers."""

    model = _MODEL
    is_local = True

    def report_stages(self, listener: Any) -> None: ...

    async def chat(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        await asyncio.Event().wait()
        yield Delta()

    async def count(self, messages: list[ChatMessage]) -> TokenCount:
        tokens = sum(len(message.text.split()) for message in messages) * _TOKENS_PER_WORD
        return TokenCount(count=tokens, context=_CONTEXT, remaining=_CONTEXT - tokens, fits=True)

    async def models(self) -> list[ModelInfo]:
        return [ModelInfo(id=_MODEL)]

    async def status(self) -> BackendStatus:
        return BackendStatus(state="ready", model=_MODEL, context=_CONTEXT)

    async def clear_kv_states(self) -> None: ...

    async def aclose(self) -> None: ...


class PictureTime(datetime):
    """A clock that stands still, so that the list of chats shows the same dates each time."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> PictureTime:
        return cls.fromtimestamp(_NOW.timestamp(), tz)


def saved() -> tuple[History, Conversation]:
    """A history with a few earlier chats, and the newest one, which shows what answers can look like."""
    history = History(Path(":memory:"))
    for when, title in EARLIER:
        _add(history, when, title, "Of course.")
    return history, _add(history, _NOW, QUESTION, ANSWER)


def _add(history: History, when: datetime, question: str, answer: str) -> Conversation:
    with patch("time.time", return_value=when.timestamp()):
        conversation = history.create(model=_MODEL)
        asked = history.add(conversation.id, "user", question, parent_id=None)
        answered = history.add(conversation.id, "assistant", "", parent_id=asked.id)
        history.update(answered.id, answer, finish_reason="stop")
    return history.conversation(conversation.id)


async def draw(act: Act, size: tuple[int, int], *, is_new: bool = False) -> str:
    """The screen after `act`, as an SVG that loads nothing from elsewhere."""
    history, conversation = saved()
    options = ChatOptions(model=_MODEL, theme="textual-dark")
    app = ChatApp(StillBackend(), history, options, None if is_new else conversation)
    async with app.run_test(size=size) as pilot:
        app.query_one(PromptArea).cursor_blink = False
        await act(pilot)
        await _settled(pilot)
        picture = app.export_screenshot(title="llama-chat")
    return _EMBEDDED_FONTS.sub("", picture)


async def _settled(pilot: Pilot[None]) -> None:
    """Waits until the tokens are counted, which is the last thing to happen."""
    line = pilot.app.screen_stack[0].query_one(StatusLine)
    while not line.status.reading.is_exact:
        await pilot.pause(0.02)
    await pilot.pause()


async def nothing(pilot: Pilot[None]) -> None: ...


async def write(pilot: Pilot[None]) -> None:
    pilot.app.query_one(PromptArea).put(DRAFT)


async def choose_message(pilot: Pilot[None]) -> None:
    await pilot.press("shift+tab", "up")


async def open_help(pilot: Pilot[None]) -> None:
    await pilot.press("f1")


async def open_history(pilot: Pilot[None]) -> None:
    await pilot.press("ctrl+r")


async def open_palette(pilot: Pilot[None]) -> None:
    await pilot.press("ctrl+p")
    await pilot.pause(0.5)


async def draw_all() -> dict[str, str]:
    """Each picture's file name and content."""
    with patch.object(sys.modules[HistoryScreen.__module__], "datetime", PictureTime):
        return {
            "chat.svg": await draw(write, (96, 26)),
            "chat-80x24.svg": await draw(write, (80, 24)),
            "welcome.svg": await draw(nothing, (80, 24), is_new=True),
            "messages.svg": await draw(choose_message, (80, 24)),
            "history.svg": await draw(open_history, (80, 24)),
            "help.svg": await draw(open_help, (80, 42)),
            "commands.svg": await draw(open_palette, (80, 24)),
        }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, picture in asyncio.run(draw_all()).items():
        (FOLDER / name).write_text(picture, encoding="utf-8")
