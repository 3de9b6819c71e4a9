"""What a chat or an answer of `ask` starts with: history, conversation, model and backend."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llama_backend.errors import ModelNotFound
from llama_backend.models.installed import InstalledModel, resolve
from llama_chat.backends.targets import find_target
from llama_chat.cli import options
from llama_chat.cli.display import output
from llama_chat.cli.options import Setup
from llama_chat.errors import ConversationNotFound, UsageError

if TYPE_CHECKING:
    from llama_chat.backends.local import LocalBackend
    from llama_chat.backends.remote import RemoteBackend
    from llama_chat.history import Conversation, History


class ChatStart:
    """The history, conversation, model and backend that the settings, `--continue` and `--cid` choose."""

    def __init__(self, setup: Setup, params: Mapping[str, Any]) -> None:
        wanted: str | None = params["conversation_id"]
        if params["continue_latest"] and wanted:
            raise UsageError("--continue and --cid exclude each other")
        self.setup = setup
        self.continues = bool(params["continue_latest"] or wanted)
        self.conversation: Conversation | None = None
        if self.continues and self.history:
            self.conversation = find_conversation(self.history, wanted)

    @cached_property
    def history(self) -> History | None:
        """None where nothing is to be read or written."""
        if not (self.continues or self.setup.settings.log):
            return None
        from llama_chat.history import History

        return History(self.setup.paths.history)

    @cached_property
    def model(self) -> InstalledModel | None:
        """The model that the local backend should serve, from the option, the conversation or the settings.

        None where the backend is elsewhere.
        """
        settings, folder = self.setup.settings, self.setup.paths.models
        if find_target(settings) is not None:
            return None
        earlier = self.conversation.model if self.conversation else ""
        if earlier and self.setup.config.sources["model"] != "option":
            try:
                return resolve(earlier, folder)
            except ModelNotFound:
                output.print_hint(
                    f"llama-chat: {earlier}, the model of this conversation, is not installed; another is used"
                )
        return resolve(settings.model, folder)

    def start_backend(self) -> None:
        """Starts the local backend; does nothing for a backend elsewhere.

        Only what this needs is imported before, so that the model is already loading while this process imports the
        rest.
        """
        if self.model is not None:
            from llama_chat.backends.launching import start

            start(self.setup.settings, self.setup.paths, self.model)

    def backend(self) -> LocalBackend | RemoteBackend:
        """The backend; it is connected to when it is first asked."""
        if self.model is None:
            elsewhere = options.remote(self.setup.settings)
            assert elsewhere is not None
            return elsewhere
        from llama_chat.backends.local import LocalBackend

        return LocalBackend(self.setup.settings, self.setup.paths, self.model)


def find_conversation(history: History, ref: str | None) -> Conversation:
    """The conversation whose id begins with `ref`; without `ref`, the one that was written to last."""
    found = history.conversation(ref) if ref else history.latest()
    if found is None:
        raise ConversationNotFound("there is no conversation yet")
    return found
