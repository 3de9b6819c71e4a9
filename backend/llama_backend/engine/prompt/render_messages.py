"""What the engine and the process that renders chat templates say to each other: msgpack frames, as in `ipc`."""

from __future__ import annotations

from msgspec import Struct

from llama_backend.wire.api import ChatMessage

SECONDS = 1.0
"""Processor time of a template to be compiled, and then for each conversation."""
MEMORY = 512 << 20
"""Bytes of data of its process."""
MOST_TEXT = 16 << 20
"""Characters of a prompt."""


class Fragment(Struct, frozen=True, array_like=True):
    """A stretch of a rendered prompt."""

    text: str
    typed: bool = False
    """Content of a message: control tokens in it are plain text."""
    answer: bool = False
    """Content of an assistant's message."""


class Source(Struct, frozen=True, kw_only=True):
    """The template to compile, which comes first; None is Llama 2's own."""

    text: str | None
    bos: str = ""
    eos: str = ""


class Rendered(Struct, frozen=True, kw_only=True):
    """The fragments of a prompt, none for a template that was compiled; or why there is nothing."""

    fragments: list[Fragment] = []
    error: str | None = None


Conversation = list[ChatMessage]
