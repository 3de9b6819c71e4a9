"""The chat: one conversation, the box to write in, and the status line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Static

from llama_backend.errors import BackendError, PromptTooLong
from llama_chat.errors import HistoryError
from llama_chat.ui.clipboard import copy_natively, native_command
from llama_chat.ui.context_meter import ContextMeter, Reading
from llama_chat.ui.interrupt import AGAIN_SECONDS, KeyLadder, Rung
from llama_chat.ui.prompt.area import PromptArea
from llama_chat.ui.session import Session
from llama_chat.ui.streaming.streaming_turn import Exchange
from llama_chat.ui.watched_backend import BackendState, WatchedBackend
from llama_chat.ui.widgets.answer import Answer
from llama_chat.ui.widgets.conversation import ConversationView
from llama_chat.ui.widgets.message import Message
from llama_chat.ui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from llama_chat.backends.attached import RoadBackend
    from llama_chat.history import Conversation, History
    from llama_chat.ui.chat_options import ChatOptions

_HINT_SECONDS = 4.0
_ALIVE_SECONDS = 20.0
"""Proxies and load balancers cut what was silent for a minute: an exec session as well as a port-forward."""


class ChatScreen(Screen[None]):
    """Brings together what the person does, the session, the backend and the widgets."""

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
        self, backend: RoadBackend, history: History, options: ChatOptions, conversation: Conversation | None = None
    ) -> None:
        super().__init__()
        self._options = options
        self._opened = conversation
        self._session = Session(history, model=options.model, system=options.system)
        self._backend = WatchedBackend(backend, self._show_backend)
        self._meter = ContextMeter(self._backend, self._show_reading)
        self._ladder = KeyLadder()
        self._exchange: Exchange | None = None
        self._hint_timer: Timer | None = None
        self._hinted_draft = ""
        self.view = ConversationView()
        self.prompt = PromptArea()
        self._line = StatusLine()

    def compose(self) -> ComposeResult:
        yield self.view
        with Horizontal(id="composer"):
            yield Static(Content("❯"), id="marker")
            yield self.prompt
        yield self._line

    async def on_mount(self) -> None:
        self._show(where=self._options.where, model=self._options.model)
        self.prompt.focus()
        await self.open(self._opened)
        self.call_after_refresh(self._backend.wake)
        self.set_interval(_ALIVE_SECONDS, self._keep_alive)

    async def on_unmount(self) -> None:
        await self.close()

    @property
    def is_answering(self) -> bool:
        return self._exchange is not None

    async def open(self, conversation: Conversation | None) -> None:
        """Shows a saved conversation, or a new one; the draft stays."""
        await self._stop()
        self._session.clear()
        try:
            if conversation is not None:
                self._session.open(conversation)
        except HistoryError as error:
            self.hint(str(error), is_warning=True)
        self.prompt.recall.replace(self._session.prompts)
        await self.view.show(self._session.messages)
        self._measure()

    async def close(self) -> None:
        """Ends what is under way; an answer that is coming is kept as far as it came."""
        self._meter.cancel()
        await self._stop()
        await self._backend.aclose()

    def hint(self, text: str, *, is_warning: bool = False, seconds: float = _HINT_SECONDS) -> None:
        """Says something in the status line for a while, or until the draft changes."""
        self._end_hint()
        self._show(hint=text, is_warning=is_warning)
        self._hinted_draft = self.prompt.text
        self._hint_timer = self.set_timer(seconds, self._end_hint)

    def _end_hint(self) -> None:
        if self._hint_timer is not None:
            self._hint_timer.stop()
            self._hint_timer = None
            self._show(hint="")

    # To ask, and to be answered

    @on(PromptArea.Submitted)
    async def _submit(self, event: PromptArea.Submitted) -> None:
        reading = self._meter.reading
        if self._is_free() and not reading.fits:
            self._refuse(f"{reading.count:,} tokens do not fit into {reading.context:,}: shorten it, or Ctrl+N")
        elif self._is_free():
            self.prompt.take()
            await self._ask(event.text)

    async def action_retry(self) -> None:
        """Asks the last question again; the history keeps the earlier answer as a branch."""
        if self._is_free() and (text := self._session.take_back()) is not None:
            await self.view.take_back()
            await self._ask(text)

    async def _ask(self, text: str) -> None:
        answer = Answer()
        exchange = Exchange(text, self._session.turn(), answer, self._show_progress, self._end)
        self._exchange = exchange
        exchange.wait(_waiting(self._backend.state))
        self._show(is_answering=True, tokens_per_second=None)
        if not self._meter.reading.is_exact:
            self._measure()
        await self.view.begin(text, answer)
        if self._exchange is exchange:
            exchange.start(self._backend, self._options.sampling)

    def _end(self, exchange: Exchange) -> None:
        self._exchange = None
        self._session.settle(exchange.turn)
        self._show(is_answering=False)
        if isinstance(exchange.error, PromptTooLong):
            self._session.take_back()
            self._put_back(exchange.question, exchange.error.message)
        elif isinstance(exchange.error, HistoryError) and exchange.turn.answer is None:
            self._put_back(exchange.question, str(exchange.error))
        self._measure()

    def _put_back(self, question: str, reason: str) -> None:
        """Makes a question that was refused, or could not be kept, the draft again."""
        self.call_later(self.view.take_back)
        draft = self.prompt.text
        self.prompt.put(f"{question}\n{draft}" if draft.strip() else question)
        self._refuse(reason)

    def _refuse(self, reason: str) -> None:
        self.hint(reason, is_warning=True, seconds=3 * _HINT_SECONDS)

    def _is_free(self) -> bool:
        """Whether a question can be asked now; says so where it cannot."""
        if self.is_answering:
            self.hint("an answer is coming; Esc stops it", is_warning=True)
        return not self.is_answering

    async def _stop(self) -> None:
        if self._exchange is not None:
            await self._exchange.stop()

    # Keys

    async def action_stop(self) -> None:
        if self.is_answering:
            await self._stop()
        else:
            self.clear_selection()
            self.prompt.focus()

    async def action_interrupt(self) -> None:
        rung = self._ladder.step(
            has_selection=bool(self._selected),
            has_draft=bool(self.prompt.text),
            is_answering=self.is_answering,
            now=time.monotonic(),
        )
        if rung is Rung.COPY:
            await self.copy(self._selected)
        elif rung is Rung.CLEAR:
            self.prompt.take()
        elif rung is Rung.STOP:
            await self._stop()
        elif rung is Rung.ASK:
            self.hint("Ctrl+C again quits", seconds=AGAIN_SECONDS)
        else:
            await self.run_action("app.quit")

    async def action_new(self) -> None:
        await self.open(None)
        self.prompt.focus()

    @work
    async def action_history(self) -> None:
        from llama_chat.ui.screens.history import HistoryScreen

        chosen = await self.app.push_screen_wait(HistoryScreen(self._session.history, self._forget))
        if chosen is not None or self._session.is_gone():
            await self.open(chosen)

    @work
    async def _forget(self) -> None:
        """What was deleted is answered no more, and what the backend has computed of it goes as well."""
        if self._session.is_gone():
            await self.open(None)
        try:
            await self._backend.clear_kv_states()
        except (BackendError, OSError) as error:
            self.hint(f"KV states are left, see `llama-chat cache`: {error}", is_warning=True)

    def action_help(self) -> None:
        from llama_chat.ui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen())

    def action_page(self, pages: int) -> None:
        scroll = self.view.scroll_page_up if pages < 0 else self.view.scroll_page_down
        scroll(animate=False)

    def action_to_messages(self) -> None:
        self.view.focus_last()

    @on(Message.Left)
    def action_to_prompt(self) -> None:
        self.prompt.focus()

    @on(PromptArea.Ended)
    async def _quit(self) -> None:
        await self.run_action("app.quit")

    @on(Message.Retried)
    async def _retry(self) -> None:
        self.prompt.focus()
        await self.action_retry()

    # To copy

    async def action_copy_answer(self) -> None:
        """Copies the newest answer."""
        if answer := self.view.last_answer:
            await self.copy(answer.text)

    @on(Message.Copied)
    async def _copy_message(self, event: Message.Copied) -> None:
        await self.copy(event.text)

    async def copy(self, text: str) -> None:
        """Puts `text` into the clipboard, by the terminal and where there is one by a program of this machine."""
        self.app.copy_to_clipboard(text)
        command = native_command()
        if command is not None and not await copy_natively(text, command):
            self.hint(f"{command[0]} did not take the text", is_warning=True)
            return
        self.hint("copied")

    @property
    def _selected(self) -> str:
        return self.prompt.selected_text or self.get_selected_text() or ""

    # What the status line shows

    @on(PromptArea.Changed)
    def _draft_changed(self) -> None:
        if self.prompt.text != self._hinted_draft:
            self._end_hint()
        if not self.is_answering:
            self._measure()

    def _measure(self) -> None:
        """Has the conversation counted, with the draft or with the question that is being answered."""
        question = self._exchange.question if self._exchange else self.prompt.text
        if self._backend.is_ready:
            self._meter.measure(self._session.request(question))
        else:
            self._meter.invalidate()

    def _show_backend(self, state: BackendState) -> None:
        was_ready = self._line.status.backend.phase == "ready"
        self._show(backend=state, model=state.model or self._options.model)
        self._meter.set_context(state.context)
        if self._exchange is not None:
            self._exchange.wait(_waiting(state))
        if state.phase == "ready" and not was_ready:
            self._measure()

    def _keep_alive(self) -> None:
        """Draws the status line anew, though it is the same, and has a backend elsewhere say how it is."""
        self._line.refresh()
        if not self._backend.is_local:
            self._backend.wake()

    def _show_reading(self, reading: Reading) -> None:
        self._show(reading=reading)

    def _show_progress(self, exchange: Exchange) -> None:
        self._show(tokens_per_second=exchange.rate.per_second)
        self._meter.grow(exchange.rate.pieces)

    def _show(self, **changes: Any) -> None:
        self._line.status = replace(self._line.status, **changes)


def _waiting(state: BackendState) -> str:
    """What an answer waits for."""
    match state.phase:
        case "ready" if state.queued:
            return f"queued at position {state.queued}"
        case "ready":
            return "reading the prompt …"
        case "loading":
            return f"waiting for the model: loading {state.progress:.0%}"
        case "connecting" | "reconnecting" | "waiting for a pod":
            return f"{state.phase} …"
        case _:
            return f"waiting for the model: {state.phase}"
