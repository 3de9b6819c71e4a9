"""One state of KV cells in the store, and where it is."""

from __future__ import annotations

from array import array
from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from llama_backend.engine.kv.memory import Bytes

TOKEN_BYTES = 4
"""Bytes of a token id in `packed` tokens."""


class Place(Enum):
    """Where a state is. It goes from QUEUED to BOTH, and from MOVING to DISK, when its file is written."""

    RAM = "in RAM only"
    QUEUED = "in RAM, and soon on disk as well"
    MOVING = "in RAM, and soon on disk instead, since a slot has the cells anyway"
    BOTH = "on disk, with a copy in RAM"
    DISK = "on disk only"
    GONE = "given up, and no longer found"


_UNWRITTEN = frozenset((Place.QUEUED, Place.MOVING))
_DURABLE = _UNWRITTEN | {Place.BOTH, Place.DISK}


@dataclass(slots=True, eq=False)
class StoredState:
    """A state, whose place the methods below change. They must be called with the store's lock held."""

    tokens: bytes
    """Ids as int32."""
    scope: str
    """Only requests of the same scope may use it."""
    place: Place
    last_used: int
    data: Bytes | None = None
    path: Path | None = None

    @property
    def length(self) -> int:
        return len(self.tokens) // TOKEN_BYTES

    @property
    def ids(self) -> list[int]:
        return array("i", self.tokens).tolist()

    @property
    def is_unwritten(self) -> bool:
        """Whether its file has yet to be written."""
        return self.place in _UNWRITTEN

    @property
    def is_durable(self) -> bool:
        """Whether it is on disk, or will be soon."""
        return self.place in _DURABLE

    def written(self, path: Path | None) -> None:
        """Notes that its file was written, or could not be where `path` is None."""
        self.path = path
        if path is None:
            self.place = Place.RAM
        elif self.place is Place.MOVING:
            self.place, self.data = Place.DISK, None
        else:
            self.place = Place.BOTH

    def was_read(self, data: Bytes) -> None:
        """Notes that its file was read, and keeps the data in RAM as well."""
        if self.place is Place.DISK:
            self.place, self.data = Place.BOTH, data

    def free_ram(self) -> None:
        """Gives up the data in RAM; a state that is not on disk is gone then."""
        self.data = None
        self.place = Place.DISK if self.place in (Place.BOTH, Place.DISK) else Place.GONE

    def file_removed(self) -> None:
        """Notes that its file was removed; a state that is not in RAM is gone then."""
        self.path = None
        self.place = Place.RAM if self.place is Place.BOTH else Place.GONE

    def give_up(self) -> None:
        """Gives the state up, wherever it is; a file that is being written is removed afterwards."""
        self.place = Place.GONE

    def is_beginning_of(self, other: StoredState) -> bool:
        """Whether all its tokens are the first ones of another state of the same scope."""
        return self.scope == other.scope and other.tokens.startswith(self.tokens)

    def in_common(self, wanted: bytes) -> int:
        """How many tokens it has in common with the beginning of `wanted`, which is packed too."""
        low, high = 0, min(len(self.tokens), len(wanted)) // TOKEN_BYTES
        if self.tokens[: high * TOKEN_BYTES] == wanted[: high * TOKEN_BYTES]:
            return high
        while high - low > 1:
            middle = (low + high) // 2
            start, end = low * TOKEN_BYTES, middle * TOKEN_BYTES
            if self.tokens[start:end] == wanted[start:end]:
                low = middle
            else:
                high = middle
        return low


@dataclass(frozen=True)
class Match:
    """A state that was found, and how many of its tokens are the first of those that were looked for."""

    state: StoredState
    length: int


def packed(tokens: Tokens[int]) -> bytes:
    """Token ids as int32."""
    return array("i", tokens).tobytes()
