"""Which conversation a command goes on with, and on which model."""

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


class Choice:
    """What the settings and the options `--continue`, `--cid` and `--log` come to."""

    def __init__(self, setup: Setup, params: Mapping[str, Any]) -> None:
        if params["resume"] and params["conversation_id"]:
            raise UsageError("--continue and --cid exclude each other")
        self.setup = setup
        self.resumes = bool(params["resume"] or params["conversation_id"])
        self.conversation: Conversation | None = None
        if self.resumes and self.history:
            self.conversation = find(self.history, params["conversation_id"])

    @cached_property
    def history(self) -> History | None:
        """None where nothing is to be read or written."""
        if not (self.resumes or self.setup.settings.log):
            return None
        from llama_chat.history import History

        return History(self.setup.paths.history)

    @cached_property
    def model(self) -> InstalledModel | None:
        """What the local backend is to serve: the option's, the conversation's or the settings' model.

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
                output.hint(f"llama-chat: {earlier}, the model of this conversation, is not installed; using another")
        return resolve(settings.model, folder)

    def start(self) -> None:
        """Starts a local backend. Nothing that it does not need is imported before, so that its model loads while the
        rest of this process still comes up."""
        if self.model is not None:
            from llama_chat.backends.launching import start

            start(self.setup.settings, self.setup.paths, self.model)

    def connection(self) -> LocalBackend | RemoteBackend:
        if self.model is None:
            elsewhere = options.remote(self.setup.settings)
            assert elsewhere is not None
            return elsewhere
        from llama_chat.backends.local import LocalBackend

        return LocalBackend(self.setup.settings, self.setup.paths, self.model)


def find(history: History, ref: str | None) -> Conversation:
    """The conversation with that id, or the one that was written to last."""
    found = history.conversation(ref) if ref else history.latest()
    if found is None:
        raise ConversationNotFound("there is no conversation yet")
    return found
