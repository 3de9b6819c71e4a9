"""Prepares requests for the engine's thread: their texts are checked and cut into tokens."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from time import sleep

import msgspec

from llama_backend.crash_notes import CrashNotes
from llama_backend.engine.kv.slots import Slots
from llama_backend.engine.kv.state_store import StateStore
from llama_backend.engine.kv.swap_policy import LEAST_KEPT
from llama_backend.engine.messages.channel import Channel, refusal
from llama_backend.engine.messages.inbox import Answers, Inbox, Texts
from llama_backend.engine.messages.lanes import Lanes, Reply, Request
from llama_backend.engine.prompt.builder import PromptBuilder
from llama_backend.engine.sequence import EngineRequest
from llama_backend.errors import BackendError, InternalError, InvalidRequest, PromptTooLong
from llama_backend.wire.ipc import Accepted, Cancel, Count, Counted, Embed, Stop, Submit

SHUTDOWN_SECONDS = 4.5
"""How long saving states may take at the end; the server kills an engine after 5 s."""


@dataclass(frozen=True)
class Limits:
    """What requests are checked against before they are computed."""

    context: int
    """Tokens of a prompt and its answer."""
    embedding_tokens: int
    """Tokens of one text to embed."""
    embedding_width: int
    """Numbers of an embedding."""


class Intake:
    """Answers requests that need no computing, and puts the others into the inbox. Any thread may use it."""

    def __init__(self, inbox: Inbox, prompts: PromptBuilder, store: StateStore, slots: Slots, limits: Limits) -> None:
        self._inbox = inbox
        self._prompts = prompts
        self._store = store
        self._slots = slots
        self._limits = limits

    def answer(self, request: Request) -> Reply:
        """The reply to a request: that it is accepted, the count that it asks for, or why it is refused."""
        try:
            match request:
                case Submit():
                    return self._prepare(request)
                case Count():
                    return self._count(request)
                case Embed():
                    return self._tokenize(request)
        except BackendError as error:
            return Reply(refusal(request.id, error))
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the thread
            return Reply(refusal(request.id, InternalError(f"the prompt cannot be made: {error!r}")))

    def _prepare(self, command: Submit) -> Reply:
        """Makes the prompt of a request, and reads a state from disk if it has more of the prompt than any slot."""
        tokens, context = self._tokens(command), self._limits.context
        if not tokens:
            raise InvalidRequest("the prompt is empty: it has no tokens", param="prompt")
        if len(tokens) >= context:
            raise PromptTooLong.of(len(tokens), context)
        self._store.prefetch(tokens, command.scope, lambda: self._slots.held(tokens, command.scope) + LEAST_KEPT)
        requests = [_engine_request(command, tokens, index) for index in range(command.n)]
        return self._accepted(Answers(command.id, requests), command.id, len(tokens))

    def _accepted(self, job: Answers | Texts, number: int, n_tokens: int) -> Reply:
        return Reply(Accepted(number, n_tokens), lambda: self._inbox.put(job))

    def _count(self, command: Count) -> Reply:
        tokens = self._tokens(command)
        ids = tokens if command.return_tokens else None
        return Reply(Counted(id=command.id, count=len(tokens), context=self._limits.context, tokens=ids))

    def _tokens(self, command: Submit | Count) -> list[int]:
        if command.messages is not None:
            return self._prompts.chat(command.messages, command.scope)
        return self._prompts.text(command.prompt or "")

    def _tokenize(self, command: Embed) -> Reply:
        width = self._limits.embedding_width
        if command.dimensions is not None and command.dimensions > width:
            text = f"dimensions: {command.dimensions} were asked for, but this model has {width}"
            raise InvalidRequest(text, param="dimensions")
        texts = [self._text(f"input[{index}]", text) for index, text in enumerate(command.inputs)]
        return self._accepted(Texts(command, texts), command.id, sum(map(len, texts)))

    def _text(self, name: str, text: str | list[int]) -> list[int]:
        """The tokens of a text to embed, which is called `name` in errors."""
        most = self._limits.embedding_tokens
        try:
            tokens = self._prompts.text(text)
        except PromptTooLong as error:
            raise _too_long(name, int(error.details["prompt_tokens"]), most) from error
        except InvalidRequest as error:
            raise InvalidRequest(f"{name}: {error}", param="input") from error
        if not tokens:
            raise InvalidRequest(f"{name}: it is empty: it has no tokens", param="input")
        if len(tokens) > most:
            raise _too_long(name, len(tokens), most)
        return tokens


class IntakeThread(threading.Thread):
    """Reads commands. Requests with texts go to the lanes, other commands to the inbox."""

    def __init__(self, channel: Channel, inbox: Inbox, intake: Intake, notes: CrashNotes) -> None:
        super().__init__(name="intake", daemon=True)
        self._channel = channel
        self._inbox = inbox
        self._lanes = Lanes(intake.answer, channel.send, notes)

    def run(self) -> None:
        """Reads until the server is gone, and then ends the process after SHUTDOWN_SECONDS, even during a step."""
        self._lanes.start()
        while (command := self._channel.receive()) is not None:
            if isinstance(command, Submit | Count | Embed):
                self._lanes.add(command)
                continue
            if isinstance(command, Cancel):
                self._lanes.cancel(command.id)
            self._inbox.put(command)
        self._inbox.put(Stop())
        sleep(SHUTDOWN_SECONDS)
        os._exit(0)


def _engine_request(command: Submit, tokens: list[int], index: int) -> EngineRequest:
    """The request for one of the answers to a prompt."""
    seed = (command.sampling.seed or 0) + index
    return EngineRequest(
        id=command.id + index,
        tokens=tokens,
        sampling=msgspec.structs.replace(command.sampling, seed=seed),
        is_chat=command.messages is not None,
        top_logprobs=command.top_logprobs,
        store=command.store,
        account=command.account,
        scope=command.scope,
    )


def _too_long(name: str, n_tokens: int, most: int) -> PromptTooLong:
    why = f"{name} has {n_tokens} tokens, and a text to embed may have {most} at most"
    return PromptTooLong(why, param="input", prompt_tokens=n_tokens, context=most)
