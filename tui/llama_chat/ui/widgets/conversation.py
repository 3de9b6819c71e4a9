"""The messages of one conversation, from top to bottom."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from textual import on, work
from textual.containers import VerticalScroll
from textual.geometry import Size

from llama_chat.history import StoredMessage
from llama_chat.ui.widgets.answer import Answer
from llama_chat.ui.widgets.message import Message
from llama_chat.ui.widgets.question import Question
from llama_chat.ui.widgets.welcome import Welcome

_AT_ONCE = 30
"""Messages that are laid out without a pause, which takes about 0.2 s."""
PAUSE_SECONDS = 0.02
"""Between two batches, for keys that were pressed meanwhile."""


class ConversationView(VerticalScroll, can_focus=False):
    """Follows the end of the answer while that is in view; scrolling up stops that, scrolling to the end resumes it."""

    DEFAULT_CSS = """
    ConversationView { height: 1fr; layout: stream; }
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_filling = False

    def watch_virtual_size(self, old: Size, new: Size) -> None:
        """Keeps the end in view where it was; a conversation that is shorter than the view starts at the top.

        When this is called, Textual has set the new `size`, but not the new `container_size`.
        """
        height = self.size.height
        was_at_end = self.scroll_y >= old.height - self.container_size.height
        if not 0 < height < new.height:
            self.anchor(False)
        elif was_at_end and not self.is_vertical_scroll_end:
            self.anchor()
        elif self._is_filling and not was_at_end:
            self.scroll_to(y=self.scroll_y + new.height - old.height, animate=False, immediate=True)

    async def show(self, messages: list[StoredMessage]) -> None:
        """Replaces all messages; without any the welcome is shown, and of many the last ones come first."""
        self.workers.cancel_node(self)
        await self.remove_children()
        *earlier, latest = list(batched(messages, _AT_ONCE)) or [()]
        await self.mount_all(map(_widget, latest) if latest else [Welcome()])
        self.scroll_end(animate=False)
        if earlier:
            self._fill(earlier)

    @work
    async def _fill(self, batches: Sequence[Sequence[StoredMessage]]) -> None:
        """Adds earlier messages above, with pauses for keys; what is in view stays in place."""
        self._is_filling = True
        try:
            for batch in reversed(batches):
                await asyncio.sleep(PAUSE_SECONDS)
                await self.mount_all(map(_widget, batch), before=0)
        finally:
            self.call_after_refresh(setattr, self, "_is_filling", False)

    async def begin(self, question: str, answer: Answer) -> None:
        """Adds a question and its answer, which has no text yet."""
        await self.query(Welcome).remove()
        await self.mount(Question(question), answer)
        self.scroll_end(animate=False)

    async def take_back(self) -> None:
        """Removes the last question and what follows it."""
        messages = list(self.query_children(Message))
        asked = max((at for at, message in enumerate(messages) if isinstance(message, Question)), default=0)
        await self.remove_children(messages[asked:])
        if not self.children:
            await self.mount(Welcome())

    @property
    def last_answer(self) -> Answer | None:
        """The newest answer that has text."""
        return next((answer for answer in reversed(self.query_children(Answer)) if answer.text), None)

    def focus_last(self) -> None:
        """Moves the focus to the newest message."""
        for message in list(self.query_children(Message))[-1:]:
            message.focus()

    @on(Message.Step)
    def _focus_neighbour(self, event: Message.Step) -> None:
        event.stop()
        messages = list(self.query_children(Message))
        at = messages.index(event.message) + event.by
        if at >= len(messages):
            self.post_message(Message.Left())
        elif at >= 0:
            messages[at].focus()


def batched(messages: Sequence[StoredMessage], size: int) -> Iterator[Sequence[StoredMessage]]:
    """Messages in batches of `size`; only the first may be smaller."""
    first = len(messages) % size
    if first:
        yield messages[:first]
    for start in range(first, len(messages), size):
        yield messages[start : start + size]


def _widget(message: StoredMessage) -> Message:
    if message.role == "user":
        return Question(message.text)
    return Answer.stored(message.text, message.finish_reason, message.error)
