"""The vocabulary of a loaded model as plain data, with functions that any thread may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain


@dataclass(frozen=True)
class Vocab:
    """The tokens of one model, their bytes, and its tokenizer."""

    size: int
    piece: Callable[[int], bytes]
    """Returns the bytes of a token in an answer; empty for control tokens."""
    encode: Callable[[str], list[int]]
    """Tokenises plain text: without BOS, and control tokens in it stay text."""
    is_eog: Callable[[int], bool]
    """Whether a token ends an answer."""
    control: dict[str, int]
    """The ids of the tokens that only a template may produce, by their text."""
    bos: int | None = None
    eos: int | None = None
    add_bos: bool = False
    space_prefix: bool = False
    """Whether text that starts a prompt or follows a control token gets a space in front (SentencePiece)."""
    lstrip: frozenset[int] = frozenset()
    """Control tokens that remove the white space before them."""
    rstrip: frozenset[int] = frozenset()
    """Control tokens that remove the white space after them."""

    @cached_property
    def eog(self) -> frozenset[int]:
        """All tokens that end an answer."""
        return frozenset(token for token in range(self.size) if self.is_eog(token))

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token."""
        plain = (len(self.piece(token)) for token in range(self.size))
        return max(chain([1], plain, (len(text.encode()) for text in self.control)))

    def text(self, token: int | None) -> str:
        """The text of a control token; empty for None."""
        names = [text for text, number in self.control.items() if number == token]
        return names[0] if names else ""
