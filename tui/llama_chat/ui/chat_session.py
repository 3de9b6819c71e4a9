"""A chat without its widgets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from llama_backend.errors import PromptTooLong
from llama_chat.ui.context_meter import ContextMeter, Reading
from llama_chat.ui.shown_conversation import ShownConversation
from llama_chat.ui.streaming.streaming_turn import AnswerSink, StreamingTurn
from llama_chat.ui.watched_backend import WatchedBackend

if TYPE_CHECKING:
    from llama_chat.backends.attached import AttachedBackend
    from llama_chat.history import Conversation, History
    from llama_chat.ui.backend_state import BackendState
    from llama_chat.ui.chat_options import ChatOptions


class StatusDisplay(Protocol):
    """Shows how the backend and the answer are."""

    def set_state(self, state: BackendState) -> None: ...

    def set_reading(self, reading: Reading) -> None: ...

    def set_rate(self, tokens_per_second: float | None) -> None: ...

    def set_answering(self, is_answering: bool) -> None: ...


class ChatSession:
    """The conversation on the screen, the backend, the token count, and the turn that is being answered.

    `draft` returns the text that would be asked next. `on_end` is called when a turn has ended, before the draft is
    counted again.
    """

    def __init__(
        self,
        backend: AttachedBackend,
        history: History,
        options: ChatOptions,
        display: StatusDisplay,
        draft: Callable[[], str],
        on_end: Callable[[StreamingTurn], None],
    ) -> None:
        self.history = history
        self.conversation = ShownConversation(history, model=options.model, system=options.system)
        self.backend = WatchedBackend(backend, self._take_state)
        self._sampling = options.sampling
        self._meter = ContextMeter(self.backend, display.set_reading)
        self._turn: StreamingTurn | None = None
        self._display = display
        self._draft = draft
        self._on_end = on_end
        self._was_ready = False

    @property
    def is_answering(self) -> bool:
        return self._turn is not None

    @property
    def reading(self) -> Reading:
        """How full the context is."""
        return self._meter.reading

    async def open(self, conversation: Conversation | None) -> None:
        """Stops the answer and goes on with a saved conversation, or starts a new one; raises HistoryError."""
        await self.stop()
        self.conversation.start_new()
        if conversation is not None:
            self.conversation.show(conversation)

    async def close(self) -> None:
        """Ends everything; what has arrived of an answer is kept."""
        self._meter.cancel()
        await self.stop()
        await self.backend.aclose()

    def begin(self, question: str, sink: AnswerSink) -> StreamingTurn:
        """The turn for a question, which `send` sends."""
        turn = StreamingTurn(question, self.conversation.next_turn(), sink, self._take_progress, self._take_end)
        self._turn = turn
        turn.wait(self.backend.state.waits_for)
        self._display.set_rate(None)
        self._display.set_answering(True)
        if not self.reading.is_exact:
            self.measure()
        return turn

    def send(self, turn: StreamingTurn) -> None:
        """Sends the question, unless the turn was stopped before."""
        if self._turn is turn:
            turn.start(self.backend, self._sampling)

    async def stop(self) -> None:
        """Stops the answer; what has arrived of it is kept."""
        if self._turn is not None:
            await self._turn.stop()

    def measure(self) -> None:
        """Has the conversation counted, with the draft or with the question that is being answered."""
        question = self._turn.question if self._turn else self._draft()
        if self.backend.is_ready:
            self._meter.measure(self.conversation.request(question))
        else:
            self._meter.invalidate()

    def _take_state(self, state: BackendState) -> None:
        was_ready, self._was_ready = self._was_ready, state.phase == "ready"
        self._display.set_state(state)
        self._meter.set_context(state.context)
        if self._turn is not None:
            self._turn.wait(state.waits_for)
        if self._was_ready and not was_ready:
            self.measure()

    def _take_progress(self, turn: StreamingTurn) -> None:
        self._display.set_rate(turn.rate.per_second)
        self._meter.estimate_answer(turn.rate.pieces)

    def _take_end(self, turn: StreamingTurn) -> None:
        self._turn = None
        self.conversation.add(turn.turn)
        if isinstance(turn.error, PromptTooLong):
            self.conversation.take_back()
        self._display.set_answering(False)
        self._on_end(turn)
        self.measure()
