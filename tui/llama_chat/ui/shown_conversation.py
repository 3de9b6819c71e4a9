"""The conversation that is on the screen: its messages, and which turn comes next."""

from __future__ import annotations

from dataclasses import replace

from llama_backend.wire.api import ChatMessage
from llama_chat.errors import ConversationNotFound
from llama_chat.history import Conversation, History, StoredMessage
from llama_chat.turn import Turn, to_request


class ShownConversation:
    """A conversation of the history, or a new one that the history does not have yet.

    `saved.tip` is the last message on the screen. It may be an earlier one than the tip in the history, which
    keeps every branch.
    """

    def __init__(self, history: History, *, model: str = "", system: str = "") -> None:
        self.history = history
        self.saved: Conversation | None = None
        """The conversation in the history; None where it is new."""
        self.messages: list[StoredMessage] = []
        self._turn: Turn | None = None
        """The turn that is under way; it creates the conversation where there was none."""
        self._model = model
        self._system = system

    def start_new(self) -> None:
        """Shows a new conversation."""
        self.saved, self.messages, self._turn = None, [], None

    def show(self, conversation: Conversation) -> None:
        """Shows a conversation of the history; raises HistoryError."""
        self.messages = self.history.messages(conversation.id, conversation.tip)
        self.saved = conversation

    def is_deleted(self) -> bool:
        """Whether the conversation was deleted from the history."""
        shown = self.saved or (self._turn.conversation if self._turn else None)
        if shown is None:
            return False
        try:
            self.history.conversation(shown.id)
        except ConversationNotFound:
            return True
        return False

    def next_turn(self) -> Turn:
        """The next turn, which has not begun yet."""
        self._turn = Turn(self.history, self.saved, model=self._model, system=self._system)
        return self._turn

    def add(self, turn: Turn) -> None:
        """Adds the messages of a turn that has ended."""
        self.saved, self._turn = turn.conversation, None
        if turn.question and turn.answer:
            answer = replace(turn.answer, text=turn.text, finish_reason=turn.finish_reason, error=turn.error)
            self.messages += [turn.question, answer]

    def take_back(self) -> str | None:
        """Goes back to before the last question and returns its text; the history keeps the question as a branch."""
        asked = [number for number, message in enumerate(self.messages) if message.role == "user"]
        if not asked or self.saved is None:
            return None
        question = self.messages[asked[-1]]
        self.messages = self.messages[: asked[-1]]
        self.saved = replace(self.saved, tip=question.parent_id)
        return question.text

    def request(self, draft: str) -> list[ChatMessage]:
        """What the backend would be sent if `draft` were asked now."""
        system = self.saved.system if self.saved else self._system
        head = [ChatMessage("system", system)] if system else []
        tail = [ChatMessage("user", draft)] if draft.strip() else []
        return [*head, *to_request(self.messages), *tail]

    @property
    def prompts(self) -> list[str]:
        """The questions so far."""
        return [message.text for message in self.messages if message.role == "user"]
