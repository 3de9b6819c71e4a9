"""Answers as OpenAI writes them: whole objects and events of a stream."""

from __future__ import annotations

import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from time import time
from typing import Any

from llama_backend.server.http.logprobs_json import TextLogprobs, chat_logprobs
from llama_backend.server.streaming.sse import DONE
from llama_backend.wire.api import Usage, encode
from llama_backend.wire.ipc import SequenceOutput, TokenLogprob


@dataclass
class Shape:
    """How the answers to one request are written; `chat` or plain text.

    `model`, `created` and `id` stand in each event. `seed` is that of the first answer; of the others it follows.
    """

    model: str
    chat: bool
    seed: int
    include_usage: bool = False
    choices: int = 1
    id: str = ""
    created: int = field(default_factory=lambda: int(time()))
    _head: bytes = b""
    _usages: dict[int, Usage | None] = field(default_factory=dict)
    _text_logprobs: defaultdict[int, TextLogprobs] = field(default_factory=lambda: defaultdict(TextLogprobs))

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}"
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        head = encode({"id": self.id, "object": kind, "created": self.created, "model": self.model})
        self._head = b"data: " + head[:-1]

    def opening(self) -> bytes:
        """The first events: the role of each answer of a chat."""
        role = {"role": "assistant", "content": ""}
        return b"".join(self._event(index, role) for index in range(self.choices)) if self.chat else b""

    def event(self, piece: SequenceOutput, index: int = 0) -> bytes:
        """The events for one piece of the answer `index`; its last piece brings the finish reason."""
        text = b""
        if piece.text or piece.logprobs or piece.finish_reason is None:
            logprobs = self._logprobs(index, piece.logprobs)
            text = self._event(index, {"content" if self.chat else "text": piece.text}, logprobs)
        if piece.finish_reason is None:
            return text
        self._usages[index] = piece.usage
        facts = {"timings": piece.timings, "seed": self.seed + index}
        return text + self._event(index, {} if self.chat else {"text": ""}, None, piece.finish_reason, facts)

    def closing(self) -> bytes:
        """What comes when all answers have ended: usage, if it was asked for, and the end of the stream."""
        if not self.include_usage:
            return DONE
        usage = encode({"choices": [], "usage": summed(self._usages)})
        return self._head + b"," + usage[1:] + b"\n\n" + DONE

    def whole(self, pieces: list[SequenceOutput]) -> bytes:
        """The answers as one object, from one piece for each."""
        choices = [self._choice(index, piece) for index, piece in enumerate(pieces)]
        head = {"id": self.id, "object": "chat.completion" if self.chat else "text_completion"}
        usage = summed({index: piece.usage for index, piece in enumerate(pieces)})
        body = {"created": self.created, "model": self.model, "choices": choices, "usage": usage}
        return encode(head | body | {"timings": pieces[0].timings, "seed": self.seed})

    def _choice(self, index: int, piece: SequenceOutput) -> dict[str, Any]:
        message = {"role": "assistant", "content": piece.text}
        content = {"message": message} if self.chat else {"text": piece.text}
        logprobs = self._logprobs(index, piece.logprobs)
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": piece.finish_reason}

    def _event(
        self,
        index: int,
        content: dict[str, str],
        logprobs: dict[str, Any] | None = None,
        reason: str | None = None,
        facts: dict[str, Any] | None = None,
    ) -> bytes:
        body = {"delta": content} if self.chat else content
        choice = {"index": index, **body, "logprobs": logprobs, "finish_reason": reason}
        return self._head + b"," + encode({"choices": [choice]} | (facts or {}))[1:] + b"\n\n"

    def _logprobs(self, index: int, entries: list[TokenLogprob] | None) -> dict[str, Any] | None:
        return chat_logprobs(entries) if self.chat else self._text_logprobs[index].write(entries)


def summed(usages: dict[int, Usage | None]) -> Usage | None:
    """The usage of all answers to one prompt, which counts once."""
    first = usages.get(0)
    if first is None or len(usages) < 2:
        return first
    completion = sum(usage.completion_tokens for usage in usages.values() if usage)
    return Usage(first.prompt_tokens, completion, first.prompt_tokens + completion, first.prompt_tokens_details)
