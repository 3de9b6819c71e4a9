"""The messages of one conversation, from top to bottom."""

from __future__ import annotations

from textual import on
from textual.containers import VerticalScroll
from textual.geometry import Size

from llama_chat.history import StoredMessage
from llama_chat.ui.widgets.answer import Answer
from llama_chat.ui.widgets.message import Message
from llama_chat.ui.widgets.question import Question
from llama_chat.ui.widgets.welcome import Welcome


class ConversationView(VerticalScroll, can_focus=False):
    """Follows the end while that is in view; scrolling away lets go, coming back takes hold again."""

    DEFAULT_CSS = """
    ConversationView { height: 1fr; layout: stream; }
    """

    def watch_virtual_size(self, old: Size, new: Size) -> None:
        """Holds on to the end where that was in view; what is shorter than the view begins at its top."""
        height = self.container_size.height
        was_at_end = self.scroll_y >= old.height - height
        if 0 < height < new.height:
            if was_at_end and not self.is_vertical_scroll_end:
                self.anchor()
        elif self.is_anchored:
            self.anchor(False)

    async def show(self, messages: list[StoredMessage]) -> None:
        """Replaces everything; a conversation without messages shows the welcome."""
        await self.remove_children()
        await self.mount_all([_widget(message) for message in messages] or [Welcome()])
        self.scroll_end(animate=False)

    async def begin(self, question: str) -> Answer:
        """Adds a question and the answer that is to come."""
        answer = Answer()
        await self.query(Welcome).remove()
        await self.mount(Question(question), answer)
        self.scroll_end(animate=False)
        return answer

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
        """Gives the keys to the newest message."""
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


def _widget(message: StoredMessage) -> Message:
    if message.role == "user":
        return Question(message.text)
    return Answer.stored(message.text, message.finish_reason, message.error)
