"""The chat: the conversation, the box to write in, and the status line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from llama_backend.errors import BackendError
from llama_chat.errors import HistoryError
from llama_chat.ui.chat_session import ChatSession
from llama_chat.ui.clipboard import copy
from llama_chat.ui.interrupt import AGAIN_SECONDS, InterruptAction, InterruptKey
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.widgets.answer import Answer
from llama_chat.ui.widgets.conversation import ConversationView
from llama_chat.ui.widgets.message import Message
from llama_chat.ui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from llama_chat.backends.attached import AttachedBackend
    from llama_chat.history import Conversation, History
    from llama_chat.ui.chat_options import ChatOptions
    from llama_chat.ui.streaming.streaming_turn import StreamingTurn

_HINT_SECONDS = 4.0
_REFUSAL_SECONDS = 12.0
ALIVE_SECONDS = 20.0
"""Proxies and load balancers close connections that are silent for a minute, of exec sessions and of port-forwards."""


class ChatScreen(Screen[None]):
    """Connects keys and widgets with a ChatSession."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", "Copy, clear, stop or quit", show=False, priority=True),
        Binding("escape", "stop", "Stop the answer", show=False),
        Binding("ctrl+t", "retry", "Ask again", show=False),
        Binding("ctrl+n", "new", "New chat", show=False),
        Binding("ctrl+r", "history", "Earlier chats", show=False),
        Binding("f1", "help", "All keys", show=False),
        Binding("ctrl+z", "app.suspend_process", "Suspend", show=False, priority=True),
        Binding("pageup", "page(-1)", "Scroll up", show=False, priority=True),
        Binding("pagedown", "page(1)", "Scroll down", show=False, priority=True),
        Binding("shift+tab", "to_messages", "To the messages", show=False),
        Binding("tab", "to_prompt", "To the prompt", show=False),
    ]

    def __init__(
        self, backend: AttachedBackend, history: History, options: ChatOptions, conversation: Conversation | None = None
    ) -> None:
        super().__init__()
        self._first_conversation = conversation
        self._interrupt = InterruptKey()
        self._hinted_draft = ""
        self._view = ConversationView()
        self._prompt = PromptArea()
        self._line = StatusLine()
        self._line.set_target(options.target_name, options.model, is_saved=options.is_saved)
        self._session = ChatSession(backend, history, options, self._line, lambda: self._prompt.text, self._show_end)

    def compose(self) -> ComposeResult:
        yield self._view
        with Horizontal(id="composer"):
            yield Static(Content("❯"), id="marker")
            yield self._prompt
        yield self._line

    async def on_mount(self) -> None:
        self._prompt.focus()
        await self._open(self._first_conversation)
        self.call_after_refresh(self._session.backend.wake)
        self.set_interval(ALIVE_SECONDS, self._keep_alive)

    async def on_unmount(self) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends what is under way; what has arrived of an answer is kept."""
        await self._session.close()

    @property
    def is_answering(self) -> bool:
        return self._session.is_answering

    async def _open(self, conversation: Conversation | None) -> None:
        """Shows a saved conversation, or a new one; the draft stays."""
        try:
            await self._session.open(conversation)
        except HistoryError as error:
            self._hint(str(error), is_warning=True)
        self._prompt.recall.replace(self._session.conversation.prompts)
        await self._view.show(self._session.conversation.messages)
        self._session.measure()

    def _hint(self, text: str, *, is_warning: bool = False, seconds: float = _HINT_SECONDS) -> None:
        """Shows a hint in the status line for a while, or until the draft changes."""
        self._hinted_draft = self._prompt.text
        self._line.show_hint(text, seconds, is_warning=is_warning)

    def _keep_alive(self) -> None:
        """Draws the status line again, though it is the same, so that the terminal's connection is never silent."""
        self._line.refresh()
        self._session.backend.keep_alive()

    # Asking

    @on(PromptArea.Submitted)
    async def _submit(self, event: PromptArea.Submitted) -> None:
        reading = self._session.reading
        if self._is_free() and not reading.fits:
            self._refuse(f"{reading.count:,} tokens do not fit into {reading.context:,}: shorten it, or Ctrl+N")
        elif self._is_free():
            self._prompt.take()
            await self._ask(event.text)

    async def action_retry(self) -> None:
        """Asks the last question again; the history keeps the earlier answer as a branch."""
        if self._is_free() and (question := self._session.conversation.take_back()) is not None:
            await self._view.take_back()
            await self._ask(question)

    @on(Message.Retried)
    async def _retry(self) -> None:
        self._prompt.focus()
        await self.action_retry()

    async def _ask(self, question: str) -> None:
        answer = Answer()
        turn = self._session.begin(question, answer)
        await self._view.begin(question, answer)
        self._session.send(turn)

    def _is_free(self) -> bool:
        """Whether a question can be asked now; where it cannot, a hint says so."""
        if self.is_answering:
            self._hint("still answering; Esc stops it", is_warning=True)
        return not self.is_answering

    def _show_end(self, turn: StreamingTurn) -> None:
        """Puts a refused question back into the box, before what was typed meanwhile."""
        if (reason := turn.refusal) is not None:
            self.call_later(self._view.take_back)
            draft = self._prompt.text
            self._prompt.put(f"{turn.question}\n{draft}" if draft.strip() else turn.question)
            self._refuse(reason)

    @on(PromptArea.Changed)
    def _draft_changed(self) -> None:
        if self._prompt.text != self._hinted_draft:
            self._line.end_hint()
        if not self.is_answering:
            self._session.measure()

    def _refuse(self, reason: str) -> None:
        self._hint(reason, is_warning=True, seconds=_REFUSAL_SECONDS)

    # Keys

    async def action_stop(self) -> None:
        if self.is_answering:
            await self._session.stop()
        else:
            self.clear_selection()
            self._prompt.focus()

    async def action_interrupt(self) -> None:
        selected = self._prompt.selected_text or self.get_selected_text() or ""
        match self._interrupt.press(
            has_selection=bool(selected),
            has_draft=bool(self._prompt.text),
            is_answering=self.is_answering,
            now=time.monotonic(),
        ):
            case InterruptAction.COPY:
                await self._copy(selected)
            case InterruptAction.CLEAR:
                self._prompt.take()
            case InterruptAction.STOP:
                await self._session.stop()
            case InterruptAction.CONFIRM:
                self._hint("Ctrl+C again quits", seconds=AGAIN_SECONDS)
            case InterruptAction.QUIT:
                await self._quit()

    @on(PromptArea.Ended)
    async def _quit(self) -> None:
        await self.run_action("app.quit")

    async def action_new(self) -> None:
        await self._open(None)
        self._prompt.focus()

    @work
    async def action_history(self) -> None:
        from llama_chat.ui.screens.history import HistoryScreen

        chosen = await self.app.push_screen_wait(HistoryScreen(self._session.history, self._clean_up_deleted))
        if chosen is not None or self._session.conversation.is_deleted():
            await self._open(chosen)

    @work
    async def _clean_up_deleted(self) -> None:
        """After a conversation was deleted: stops its answer, and deletes what the backend has computed of it."""
        if self._session.conversation.is_deleted():
            await self._open(None)
        try:
            await self._session.backend.clear_kv_states()
        except (BackendError, OSError) as error:
            self._hint(f"deleted, but KV states are left (`llama-chat cache` shows them): {error}", is_warning=True)

    def action_help(self) -> None:
        from llama_chat.ui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())

    def action_page(self, pages: int) -> None:
        scroll = self._view.scroll_page_up if pages < 0 else self._view.scroll_page_down
        scroll(animate=False)

    def action_to_messages(self) -> None:
        self._view.focus_last()

    @on(Message.Left)
    def action_to_prompt(self) -> None:
        self._prompt.focus()

    # Copying

    async def action_copy_answer(self) -> None:
        """Copies the newest answer."""
        if answer := self._view.last_answer:
            await self._copy(answer.text)

    @on(Message.Copied)
    async def _copy_message(self, event: Message.Copied) -> None:
        await self._copy(event.text)

    async def _copy(self, text: str) -> None:
        failed = await copy(self.app, text)
        self._hint(f"{failed} could not copy the text" if failed else "copied", is_warning=bool(failed))
