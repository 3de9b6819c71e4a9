"""A grammar of llama.cpp that an answer must match.

llama.cpp ends the process when a grammar is given a token that it does not allow. So every token is checked first.
"""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from llama_backend.engine.llama.binding import lib
from llama_backend.errors import InvalidRequest


class Candidates:
    """All tokens with their logits, as samplers and grammars take them."""

    def __init__(self, n_vocab: int) -> None:
        kind = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        self._array = np.zeros(n_vocab, kind)
        self._ids = np.arange(n_vocab, dtype=np.int32)
        self._struct = lib.llama_token_data_array()
        self._pointer = ctypes.cast(self._array.ctypes.data, type(self._struct.data))
        self.reference = ctypes.byref(self._struct)

    def fill(self, logits: npt.NDArray[np.float32] | float) -> None:
        """Resets all tokens, to their own logits or to the same logit for each of them."""
        self._array["id"], self._array["logit"], self._array["p"] = self._ids, logits, 0
        self._struct.data, self._struct.size = self._pointer, len(self._array)
        self._struct.selected, self._struct.sorted = -1, False

    @property
    def allowed(self) -> npt.NDArray[np.int32]:
        """The ids of the tokens that are possible; only valid before a chain sorts them."""
        return self._ids[~np.isneginf(self._array["logit"])]

    @property
    def selected(self) -> int:
        """The token that a chain chose."""
        return int(self._struct.data[self._struct.selected].id)


class Grammar:
    """A grammar and its position in one answer. Raises InvalidRequest for a text that is not a grammar.

    `vocab` is the address of llama.cpp's vocabulary; with None the text is only parsed.
    """

    def __init__(self, vocab: int | None, text: str) -> None:
        self._handle = lib.llama_sampler_init_grammar(vocab, text.encode(), b"root")
        if not self._handle:
            raise InvalidRequest("grammar: llama.cpp cannot parse it", param="grammar")
        self._one = lib.llama_token_data()
        self._array = lib.llama_token_data_array()
        self._array.data, self._array.size = ctypes.pointer(self._one), 1

    def allows(self, token: int) -> bool:
        """Whether the token may come next."""
        self._one.id, self._one.logit = token, 1.0
        self._array.selected, self._array.sorted = -1, False
        lib.llama_sampler_apply(self._handle, ctypes.byref(self._array))
        return bool(self._one.logit == 1.0)

    def mask(self, candidates: Candidates) -> None:
        """Gives every token that may not come next a logit of minus infinity."""
        lib.llama_sampler_apply(self._handle, candidates.reference)

    def accept(self, token: int) -> None:
        """Advances by a token, which must be allowed."""
        lib.llama_sampler_accept(self._handle, token)

    def free(self) -> None:
        """Frees it; nothing else may be called afterwards."""
        lib.llama_sampler_free(self._handle)
