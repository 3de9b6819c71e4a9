"""Responses in OpenAI's format: as one object, or as the events of a stream."""

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
class ResponseWriter:
    """Writes the answers to one request, of a chat or of a text completion.

    Each event has `model`, `created` and `id`. `seed` is that of the first answer; each further answer has the next.
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

    def event(self, output: SequenceOutput, index: int = 0) -> bytes:
        """The events for one output of the answer `index`; its last output has the finish reason."""
        text = b""
        if output.text or output.logprobs or output.finish_reason is None:
            logprobs = self._logprobs(index, output.logprobs)
            text = self._event(index, {"content" if self.chat else "text": output.text}, logprobs)
        if output.finish_reason is None:
            return text
        self._usages[index] = output.usage
        facts = {"timings": output.timings, "seed": self.seed + index}
        return text + self._event(index, {} if self.chat else {"text": ""}, None, output.finish_reason, facts)

    def closing(self) -> bytes:
        """The last events, after all answers: the usage, if it was asked for, and the end of the stream."""
        if not self.include_usage:
            return DONE
        usage = encode({"choices": [], "usage": summed(self._usages)})
        return self._head + b"," + usage[1:] + b"\n\n" + DONE

    def whole(self, outputs: list[SequenceOutput]) -> bytes:
        """All answers as one object, from one output for each."""
        choices = [self._choice(index, output) for index, output in enumerate(outputs)]
        head = {"id": self.id, "object": "chat.completion" if self.chat else "text_completion"}
        usage = summed({index: output.usage for index, output in enumerate(outputs)})
        body = {"created": self.created, "model": self.model, "choices": choices, "usage": usage}
        return encode(head | body | {"timings": outputs[0].timings, "seed": self.seed})

    def _choice(self, index: int, output: SequenceOutput) -> dict[str, Any]:
        message = {"role": "assistant", "content": output.text}
        content = {"message": message} if self.chat else {"text": output.text}
        logprobs = self._logprobs(index, output.logprobs)
        return {"index": index, **content, "logprobs": logprobs, "finish_reason": output.finish_reason}

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
    """The usage of all answers to one prompt; the prompt's tokens count once."""
    first = usages.get(0)
    if first is None or len(usages) < 2:
        return first
    completion = sum(usage.completion_tokens for usage in usages.values() if usage)
    return Usage(first.prompt_tokens, completion, first.prompt_tokens + completion, first.prompt_tokens_details)
