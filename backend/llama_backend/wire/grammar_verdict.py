"""The messages between a server and a process that checks a grammar."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

MOST_CHARACTERS = 256 * 1024
"""Most characters of a grammar, also of one that was made from a schema."""


class Question(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A grammar in llama.cpp's notation or a JSON schema, which is to be checked."""

    grammar: str | None = None
    json_schema: Any = None


class Verdict(Struct, frozen=True, kw_only=True):
    """The checked grammar in llama.cpp's notation, or the reason why it cannot be used."""

    grammar: str | None = None
    error: str | None = None
