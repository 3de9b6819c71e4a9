"""Answers as OpenAI writes them: whole objects and events of a stream."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from time import time
from typing import Any

from llama_backend.api import Timings, Usage, encode
from llama_backend.ipc import Piece

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": heartbeat\n\n"


@dataclass
class Shape:
    """How one answer is written; `chat` or plain text. `model`, `created` and `id` stand in each event."""

    model: str
    chat: bool
    seed: int
    include_usage: bool = False
    id: str = ""
    created: int = field(default_factory=lambda: int(time()))
    _head: bytes = b""

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{secrets.token_hex(12)}"
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        head = encode({"id": self.id, "object": kind, "created": self.created, "model": self.model})
        self._head = b"data: " + head[:-1]

    def opening(self) -> bytes:
        """The first event: the role of a chat's answer."""
        return self._event({"role": "assistant", "content": ""}, None) if self.chat else b""

    def event(self, piece: Piece) -> bytes:
        """The events for one piece; the last piece brings finish reason and, if asked for, usage."""
        text = self._event({"content": piece.text} if self.chat else {"text": piece.text}, None)
        if piece.finish_reason is None:
            return text
        last = self._event({} if self.chat else {"text": ""}, piece.finish_reason, self._facts(piece))
        usage = self._usage_event(piece.usage) if self.include_usage else b""
        return (text if piece.text else b"") + last + usage + DONE

    def whole(self, text: str, last: Piece) -> bytes:
        """The whole answer as one object."""
        content: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": last.finish_reason}
        head = {"id": self.id, "object": "chat.completion" if self.chat else "text_completion"}
        body = {"created": self.created, "model": self.model, "choices": [choice], "usage": last.usage}
        return encode(head | body | self._facts(last))

    def _event(self, content: dict[str, str], reason: str | None, facts: dict[str, Any] | None = None) -> bytes:
        body = {"delta": content} if self.chat else content
        choice = {"index": 0, **body, "logprobs": None, "finish_reason": reason}
        return self._head + b"," + encode({"choices": [choice]} | (facts or {}))[1:] + b"\n\n"

    def _usage_event(self, usage: Usage | None) -> bytes:
        return self._head + b"," + encode({"choices": [], "usage": usage})[1:] + b"\n\n"

    def _facts(self, piece: Piece) -> dict[str, Timings | int | None]:
        return {"timings": piece.timings, "seed": self.seed}


def error_event(error: dict[str, Any]) -> bytes:
    """An error in mid-stream; nothing comes after it."""
    return b"data: " + encode(error) + b"\n\n"
