"""The conversation that is on the screen, and the turns that it takes."""

from __future__ import annotations

from dataclasses import replace

from llama_backend.wire.api import ChatMessage
from llama_chat.errors import ConversationNotFound
from llama_chat.history import Conversation, History, StoredMessage
from llama_chat.turn import Turn, to_request


class Session:
    """One conversation of the history, or a new one that is not there yet.

    `conversation.tip` is the end of what the screen shows, which may be an earlier message than the history's own tip.
    """

    def __init__(self, history: History, *, model: str = "", system: str = "") -> None:
        self.history = history
        self.conversation: Conversation | None = None
        self.messages: list[StoredMessage] = []
        self._turn: Turn | None = None
        """The one that is under way, which makes the conversation where there was none."""
        self._model = model
        self._system = system

    def clear(self) -> None:
        """Begins a new conversation."""
        self.conversation, self.messages, self._turn = None, [], None

    def open(self, conversation: Conversation) -> None:
        """Goes on with a conversation of the history; raises HistoryError."""
        self.messages = self.history.messages(conversation.id, conversation.tip)
        self.conversation = conversation

    def is_gone(self) -> bool:
        """Whether the history does not have the conversation any more."""
        shown = self.conversation or (self._turn.conversation if self._turn else None)
        if shown is None:
            return False
        try:
            self.history.conversation(shown.id)
        except ConversationNotFound:
            return True
        return False

    def turn(self) -> Turn:
        """The next turn, not yet begun."""
        self._turn = Turn(self.history, self.conversation, model=self._model, system=self._system)
        return self._turn

    def settle(self, turn: Turn) -> None:
        """Takes over what a turn that ended has brought."""
        self.conversation, self._turn = turn.conversation, None
        if turn.question and turn.answer:
            answer = replace(turn.answer, text=turn.text, finish_reason=turn.finish_reason, error=turn.error)
            self.messages += [turn.question, answer]

    def take_back(self) -> str | None:
        """Steps back to before the last question and gives its text; the history keeps it as a branch."""
        asked = next((at for at in range(len(self.messages) - 1, -1, -1) if self.messages[at].role == "user"), None)
        if asked is None or self.conversation is None:
            return None
        question = self.messages[asked]
        self.messages = self.messages[:asked]
        self.conversation = replace(self.conversation, tip=question.parent_id)
        return question.text

    def request(self, draft: str) -> list[ChatMessage]:
        """What the backend would be sent if `draft` were asked now."""
        system = self.conversation.system if self.conversation else self._system
        head = [ChatMessage("system", system)] if system else []
        tail = [ChatMessage("user", draft)] if draft.strip() else []
        return [*head, *to_request(self.messages), *tail]

    @property
    def prompts(self) -> list[str]:
        """What was asked so far."""
        return [message.text for message in self.messages if message.role == "user"]
