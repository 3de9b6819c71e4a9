"""What a server and the process that checks a grammar say to each other."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

MOST_CHARACTERS = 256 * 1024
"""Of a grammar, also of one that was made from a schema."""


class Question(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A grammar in llama.cpp's notation, or else a JSON schema."""

    grammar: str | None = None
    json_schema: Any = None


class Verdict(Struct, frozen=True, kw_only=True):
    """The grammar in llama.cpp's notation, or why it cannot be used."""

    grammar: str | None = None
    error: str | None = None
