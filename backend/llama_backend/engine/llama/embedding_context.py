"""A context of llama.cpp that gives a vector for each token; it uses the same weights as the context for answers."""

from __future__ import annotations

import numpy as np

from llama_backend.engine.embedder import Part, Vectors
from llama_backend.engine.llama.batch_arrays import BatchArrays
from llama_backend.engine.llama.binding import lib
from llama_backend.engine.llama.model import Model
from llama_backend.errors import InternalError

_TEXTS = 16
"""Texts that are computed at the same time."""
_CHUNK = 128
"""Tokens of a batch; they are few, so that answers do not wait long for it."""


class EmbeddingContext:
    """See `embedder.Context`. The embedder does the pooling, so that a text can be computed in parts."""

    def __init__(self, model: Model, room: int, threads: int) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx = room
        params.n_seq_max = _TEXTS
        params.n_batch = params.n_ubatch = _CHUNK
        params.kv_unified = True
        params.embeddings = True
        params.pooling_type = lib.LLAMA_POOLING_TYPE_NONE
        params.n_threads = params.n_threads_batch = threads
        self._context = lib.llama_init_from_model(model.handle, params)
        if not self._context:
            raise InternalError(f"llama.cpp cannot make a context of {room} tokens for embeddings")
        self._memory = lib.llama_get_memory(self._context)
        self._width = model.embedding_width
        self._arrays = BatchArrays(_CHUNK)
        self.room = room
        self.texts = _TEXTS
        self.chunk = _CHUNK

    def compute(self, parts: list[Part]) -> list[Vectors]:
        """See `embedder.Context`."""
        ends = [row + 1 for row in self._fill(parts)]
        code = lib.llama_decode(self._context, self._arrays.struct)
        if code != 0:
            raise InternalError(f"llama.cpp cannot compute an embedding (llama_decode returned {code})")
        lib.llama_synchronize(self._context)
        rows = np.ctypeslib.as_array(lib.llama_get_embeddings(self._context), (ends[-1], self._width))
        return np.split(rows, ends[:-1])

    def clear(self, seq_id: int) -> None:
        """See `embedder.Context`."""
        lib.llama_memory_seq_rm(self._memory, seq_id, -1, -1)

    def close(self) -> None:
        """See `embedder.Context`."""
        lib.llama_free(self._context)

    def _fill(self, parts: list[Part]) -> list[int]:
        """Writes the parts, all of whose tokens get a vector; returns the row of each part's last token."""
        rows = self._arrays.put((part.text.seq_id, part.text.done, part.tokens) for part in parts)
        self._arrays.logits[: self._arrays.struct.n_tokens] = 1
        return rows
