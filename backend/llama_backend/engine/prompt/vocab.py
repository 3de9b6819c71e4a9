"""The vocabulary of a loaded model, as plain data and functions that any thread may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import chain


@dataclass(frozen=True)
class Vocab:
    """Token ids, their bytes, and the tokenizer of one model."""

    size: int
    piece: Callable[[int], bytes]
    """Bytes of a token as it stands in an answer; none for control tokens."""
    encode: Callable[[str], list[int]]
    """Tokenises plain text: no BOS, and control tokens in it stay text."""
    is_eog: Callable[[int], bool]
    """Whether a token ends an answer."""
    control: dict[str, int]
    """Text → id of the tokens that only a template may produce."""
    bos: int | None = None
    eos: int | None = None
    add_bos: bool = False
    space_prefix: bool = False
    """A space is put before text that starts a prompt or follows a control token (SentencePiece)."""
    lstrip: frozenset[int] = frozenset()
    """Control tokens that swallow the white space before them."""
    rstrip: frozenset[int] = frozenset()
    """Control tokens that swallow the white space after them."""

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
        """The text of a control token, or nothing for None."""
        names = [text for text, number in self.control.items() if number == token]
        return names[0] if names else ""
