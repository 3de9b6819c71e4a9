"""Which conversation a command goes on with, and on which model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llama_backend.errors import ModelNotFound
from llama_chat.cli import options, output
from llama_chat.cli.options import Setup
from llama_chat.connection import Connection
from llama_chat.errors import ConversationNotFound, UsageError

if TYPE_CHECKING:
    from llama_backend.models import InstalledModel
    from llama_chat.history import Conversation, History


class Choice:
    """What the settings and the options `--continue`, `--cid` and `--log` come to."""

    def __init__(self, setup: Setup, params: Mapping[str, Any]) -> None:
        if params["resume"] and params["conversation_id"]:
            raise UsageError("--continue and --cid exclude each other")
        resumes = params["resume"] or params["conversation_id"]
        self.setup = setup
        self.history = _open_history(setup) if resumes or setup.settings.log else None
        self.conversation: Conversation | None = None
        if self.history and resumes:
            self.conversation = find(self.history, params["conversation_id"])

    def connection(self) -> Connection:
        """The backend, not yet started."""
        settings = self.setup.settings
        key = options.api_key(settings)
        return Connection(settings, self.setup.paths, None if settings.url else self._model(), key)

    def _model(self) -> InstalledModel:
        """The model of the option, or else the conversation's, or else the settings'."""
        from llama_backend.models import resolve

        wanted, folder = self.setup.settings.model, self.setup.paths.models
        earlier = self.conversation.model if self.conversation else ""
        if earlier and self.setup.config.sources["model"] != "option":
            try:
                return resolve(earlier, folder)
            except ModelNotFound:
                output.hint(f"llama-chat: {earlier}, the model of this conversation, is not installed; using another")
        return resolve(wanted, folder)


def _open_history(setup: Setup) -> History:
    from llama_chat.history import History

    return History(setup.paths.history)


def find(history: History, ref: str | None) -> Conversation:
    """The conversation with that id, or the one that was written to last."""
    found = history.conversation(ref) if ref else history.latest()
    if found is None:
        raise ConversationNotFound("there is no conversation yet")
    return found
