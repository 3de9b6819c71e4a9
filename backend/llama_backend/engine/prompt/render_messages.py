"""The messages between the engine and the process of a chat template: msgpack frames, as in `wire/ipc.py`."""

from __future__ import annotations

from typing import BinaryIO

from msgspec import Struct

from llama_backend.wire.api import ChatMessage
from llama_backend.wire.ipc import HEADER

SECONDS = 1.0
"""Most processor time for compiling a template, and for rendering each conversation."""
MEMORY = 512 << 20
"""Most bytes of memory of a template's process."""
MOST_TEXT = 16 << 20
"""Most characters of a rendered prompt."""


class Fragment(Struct, frozen=True, array_like=True):
    """A part of a rendered prompt."""

    text: str
    typed: bool = False
    """Whether it is the content of a message, in which the texts of control tokens stay plain text."""
    answer: bool = False
    """Whether it is the content of an assistant's message."""


class Source(Struct, frozen=True, kw_only=True):
    """The template to compile, which is sent first; None means Llama 2's own."""

    text: str | None
    bos: str = ""
    eos: str = ""


class Rendered(Struct, frozen=True, kw_only=True):
    """The fragments of a prompt (none where a template was compiled), or the error."""

    fragments: list[Fragment] = []
    error: str | None = None


Conversation = list[ChatMessage]
"""The messages to render; sent after the template, any number of times."""


def read_payload(file: BinaryIO) -> bytes:
    """The payload of the next frame; empty where the other side has closed its end."""
    header = file.read(HEADER.size)
    return file.read(HEADER.unpack(header)[0]) if len(header) == HEADER.size else b""
