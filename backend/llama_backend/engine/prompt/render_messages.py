"""What the engine and the process of a chat template send to each other: msgpack frames, as in `wire/ipc.py`."""

from __future__ import annotations

from msgspec import Struct

from llama_backend.wire.api import ChatMessage

SECONDS = 1.0
"""Processor time for compiling a template, and for each conversation."""
MEMORY = 512 << 20
"""Bytes of memory that a template's process may take."""
MOST_TEXT = 16 << 20
"""Characters of a rendered prompt."""


class Fragment(Struct, frozen=True, array_like=True):
    """A stretch of a rendered prompt."""

    text: str
    typed: bool = False
    """Whether it is the content of a message, in which control tokens are plain text."""
    answer: bool = False
    """Whether it is the content of an assistant's message."""


class Source(Struct, frozen=True, kw_only=True):
    """The template to compile, which is sent first; None is Llama 2's own."""

    text: str | None
    bos: str = ""
    eos: str = ""


class Rendered(Struct, frozen=True, kw_only=True):
    """The fragments of a prompt (none where a template was compiled), or the error."""

    fragments: list[Fragment] = []
    error: str | None = None


Conversation = list[ChatMessage]
"""What is sent after the template, to be rendered."""
