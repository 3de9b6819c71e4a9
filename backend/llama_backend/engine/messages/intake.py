"""The engine beside its own thread: reads commands, makes prompts and answers what needs no computing."""

from __future__ import annotations

import os
import socket
import threading
from collections import deque
from dataclasses import dataclass
from time import sleep

from llama_backend.crash_notes import CrashNotes
from llama_backend.engine.kv.cache import LEAST_KEPT
from llama_backend.engine.kv.state_store import KVStore
from llama_backend.engine.messages.lanes import Lanes, Reply, Request
from llama_backend.engine.prompt.builder import PromptBuilder
from llama_backend.errors import BackendError, InternalError, InvalidRequest, PromptTooLong
from llama_backend.wire.ipc import (
    HEADER,
    MAX_FRAME,
    Accepted,
    Cancel,
    ClearKVStates,
    Command,
    Count,
    Counted,
    Embed,
    Event,
    Refused,
    Stop,
    Submit,
    decode_command,
    frame,
)

LEAVE_SECONDS = 4.5
"""What states may take to be written at the end; the server kills an engine after 5 s."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request whose prompt is known to fit."""

    command: Submit
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Texts:
    """A request for embeddings whose texts are known to fit."""

    command: Embed
    texts: list[list[int]]


Job = Prompt | Texts | Cancel | ClearKVStates | Stop


class Channel:
    """Frames on a socket; sending is safe from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._file = sock.makefile("rb")

    def send(self, event: Event) -> None:
        data = frame(event)
        with self._lock:
            self._sock.sendall(data)

    def receive(self) -> Command | None:
        """The next command, or None where the other side is gone."""
        header = self._file.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        (size,) = HEADER.unpack(header)
        payload = self._file.read(size) if size <= MAX_FRAME else b""
        return decode_command(payload) if len(payload) == size else None


class Inbox:
    """Jobs from the reader's thread to the engine's."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self._ready = threading.Event()

    def put(self, job: Job) -> None:
        self._jobs.append(job)
        self._ready.set()

    def take(self, wait: float | None) -> list[Job]:
        """All jobs so far; where there is none, what comes within `wait` seconds, None is at least one."""
        if wait != 0:
            self._ready.wait(wait)
        self._ready.clear()
        jobs = []
        while self._jobs:
            jobs.append(self._jobs.popleft())
        return jobs


@dataclass(frozen=True)
class Limits:
    """What requests are checked against before they are computed."""

    context: int
    """Tokens of a prompt and its answer."""
    embedding_tokens: int
    """Tokens of one text to embed."""
    embedding_width: int
    """Numbers of an embedding."""


class Reader(threading.Thread):
    """Reads commands; those that have texts are answered on lanes of their own, and so is what was wrong with them."""

    def __init__(
        self,
        channel: Channel,
        inbox: Inbox,
        prompts: PromptBuilder,
        store: KVStore,
        limits: Limits,
        notes: CrashNotes,
    ) -> None:
        super().__init__(name="reader", daemon=True)
        self._channel = channel
        self._inbox = inbox
        self._lanes = Lanes(Clerk(inbox, prompts, store, limits).answer, channel.send, notes)

    def run(self) -> None:
        """Reads until the other side is gone; the engine ends then, and a step that is long is not waited for."""
        self._lanes.start()
        while (command := self._channel.receive()) is not None:
            if isinstance(command, Submit | Count | Embed):
                self._lanes.add(command)
                continue
            if isinstance(command, Cancel):
                self._lanes.cancel(command.id)
            self._inbox.put(command)
        self._inbox.put(Stop())
        sleep(LEAVE_SECONDS)
        os._exit(0)


class Clerk:
    """Answers requests as far as that needs no computing; any thread may ask."""

    def __init__(self, inbox: Inbox, prompts: PromptBuilder, store: KVStore, limits: Limits) -> None:
        self._inbox = inbox
        self._prompts = prompts
        self._store = store
        self._limits = limits

    def answer(self, request: Request) -> Reply:
        """That a request is accepted, what it asks for, or why it is refused."""
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
        tokens, context = self._tokens(command), self._limits.context
        if not tokens:
            raise InvalidRequest("the prompt is empty: it has no tokens", param="prompt")
        if len(tokens) >= context:
            raise PromptTooLong.of(len(tokens), context)
        self._store.prefetch(tokens, command.scope, LEAST_KEPT)
        return self._accepted(Prompt(command, tokens), len(tokens))

    def _accepted(self, job: Prompt | Texts, n_tokens: int) -> Reply:
        return Reply(Accepted(job.command.id, n_tokens), lambda: self._inbox.put(job))

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
            text = f"dimensions: {command.dimensions} are asked for, and this model has {width}"
            raise InvalidRequest(text, param="dimensions")
        texts = [self._text(f"input[{index}]", text) for index, text in enumerate(command.inputs)]
        return self._accepted(Texts(command, texts), sum(map(len, texts)))

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


def _too_long(name: str, n_tokens: int, most: int) -> PromptTooLong:
    why = f"{name} has {n_tokens} tokens, and an embedding is of {most} at most"
    return PromptTooLong(why, param="input", prompt_tokens=n_tokens, context=most)


def refusal(number: int, error: BackendError) -> Refused:
    details = error.details
    return Refused(
        id=number,
        code=error.code,
        message=error.message,
        prompt_tokens=details.get("prompt_tokens"),
        context=details.get("context"),
        param=details.get("param"),
    )
