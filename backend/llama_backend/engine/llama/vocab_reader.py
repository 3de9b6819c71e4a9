"""A model's vocabulary, read out of llama.cpp."""

from __future__ import annotations

import ctypes
from functools import cache

from llama_backend.engine.llama.binding import lib, quick
from llama_backend.engine.prompt.vocab import Vocab

_PIECE_SIZE = 256
"""Size of the buffer for a token; longer tokens are read a second time."""


class VocabReader:
    """Reads llama.cpp's vocabulary with the address `handle`, and tokenises with it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._attr = quick("llama_vocab_get_attr")
        self._to_piece = quick("llama_token_to_piece")
        self._is_eog = quick("llama_vocab_is_eog")

    def read(self, space_prefix: bool) -> Vocab:
        """The vocabulary; `space_prefix` is given, since it depends on the file's header."""
        size = lib.llama_vocab_n_tokens(self._handle)
        attrs = [self._attr(self._handle, token) for token in range(size)]
        control = [token for token, attr in enumerate(attrs) if attr & lib.LLAMA_TOKEN_ATTR_CONTROL]
        return Vocab(
            size=size,
            piece=cache(self.piece),
            control={text: token for token in reversed(control) if (text := self.text(token))},
            encode=self.encode,
            is_eog=lambda token: bool(self._is_eog(self._handle, token)),
            bos=_token(lib.llama_vocab_bos(self._handle)),
            eos=_token(lib.llama_vocab_eos(self._handle)),
            add_bos=bool(lib.llama_vocab_get_add_bos(self._handle)),
            space_prefix=space_prefix,
            lstrip=frozenset(token for token in control if attrs[token] & lib.LLAMA_TOKEN_ATTR_LSTRIP),
            rstrip=frozenset(token for token in control if attrs[token] & lib.LLAMA_TOKEN_ATTR_RSTRIP),
        )

    def text(self, token: int) -> str:
        """The text of a token as the vocabulary has it."""
        return (lib.llama_vocab_get_text(self._handle, token) or b"").decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes of a token in an answer; empty for control tokens."""
        buffer = ctypes.create_string_buffer(_PIECE_SIZE)
        size = self._to_piece(self._handle, token, buffer, _PIECE_SIZE, 0, False)
        if size < 0:
            buffer = ctypes.create_string_buffer(-size)
            size = self._to_piece(self._handle, token, buffer, -size, 0, False)
        return buffer.raw[:size]

    def encode(self, text: str) -> list[int]:
        """The tokens of plain text: without BOS, and control tokens in it stay text."""
        data = text.encode("utf-8", "replace")
        tokens, count = self._tokenize(data, len(data) + 8)
        if count < 0:
            tokens, count = self._tokenize(data, -count)
        return tokens

    def _tokenize(self, data: bytes, room: int) -> tuple[list[int], int]:
        """The tokens and their number; where `room` is too small, no tokens and minus the number that is needed."""
        tokens = (lib.llama_token * room)()
        count = lib.llama_tokenize(self._handle, data, len(data), tokens, room, False, False)
        return tokens[: max(count, 0)], int(count)


def _token(number: int) -> int | None:
    return number if number >= 0 else None
