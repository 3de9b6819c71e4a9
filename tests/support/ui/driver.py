"""Drives a chat as a person would: keys in, what is on the screen out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from textual.pilot import Pilot
from textual.widget import Widget

from llama_chat.history import Conversation, History
from llama_chat.ui.app import ChatApp
from llama_chat.ui.chat_options import ChatOptions
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.screens.chat import ChatScreen
from llama_chat.ui.widgets.answer import Answer
from llama_chat.ui.widgets.conversation import ConversationView
from llama_chat.ui.widgets.message import Message
from llama_chat.ui.widgets.question import Question
from llama_chat.ui.widgets.status_line import Status, StatusLine
from tests.support.ui.scripted_backend import ScriptedBackend

OPTIONS = ChatOptions(model="SmolLM2-135M-Instruct")


@dataclass
class Driver:
    """A running chat."""

    app: ChatApp
    pilot: Pilot[None]
    backend: ScriptedBackend
    history: History

    @property
    def chat(self) -> ChatScreen:
        return next(screen for screen in self.app.screen_stack if isinstance(screen, ChatScreen))

    def has_keys(self, widget: Widget) -> bool:
        """Whether the keys go to `widget`."""
        return self.app.focused is widget

    @property
    def prompt(self) -> PromptArea:
        return self.chat.query_one(PromptArea)

    @property
    def view(self) -> ConversationView:
        return self.chat.query_one(ConversationView)

    @property
    def status(self) -> Status:
        return self.chat.query_one(StatusLine).status

    @property
    def line(self) -> str:
        """The status line as it is shown."""
        return self.chat.query_one(StatusLine).render().plain

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Who said what, from top to bottom."""
        shown = self.view.query_children(Message)
        return [("user" if isinstance(message, Question) else "model", message.text) for message in shown]

    @property
    def note(self) -> str:
        """What stands below the last answer."""
        return self.view.query(Answer).last().note.plain

    @property
    def screen_text(self) -> str:
        """The text of the whole screen, for which Textual has no public function."""
        strips = self.app.screen._compositor.render_strips()
        return "\n".join("".join(segment.text for segment in strip) for strip in strips)

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def send(self, text: str) -> None:
        """Writes `text` and presses Enter."""
        self.prompt.put(text)
        await self.pilot.pause(0.01)
        await self.pilot.press("enter")

    async def until(self, condition: Callable[[], object], seconds: float = 30.0) -> None:
        """Waits until something is so."""
        for _ in range(int(seconds / 0.02)):
            if condition():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"did not become true; the screen was:\n{self.screen_text}")

    async def answered(self) -> None:
        """Waits until the answer that was asked for is complete."""
        await self.until(lambda: self.view.query(Answer) and not self.chat.is_answering)

    async def ready(self) -> None:
        await self.until(lambda: self.status.backend.phase == "ready")


@asynccontextmanager
async def running(
    backend: ScriptedBackend | None = None,
    *,
    history: History | None = None,
    conversation: Conversation | None = None,
    options: ChatOptions = OPTIONS,
    size: tuple[int, int] = (80, 24),
) -> AsyncIterator[Driver]:
    """A chat on a terminal of that size."""
    backend = backend or ScriptedBackend()
    history = history or History(Path(":memory:"))
    app = ChatApp(backend, history, options, conversation)
    async with app.run_test(size=size) as pilot:
        driver = Driver(app, pilot, backend, history)
        driver.prompt.cursor_blink = False
        yield driver
