"""The arrays of a `llama_batch`, which numpy fills and llama.cpp reads."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np
import numpy.typing as npt

from llama_backend.engine.batch import Batch
from llama_backend.engine.llama.binding import lib


class BatchArrays:
    """The arrays of a `llama_batch` of up to `size` tokens, made once and filled for each batch."""

    def __init__(self, size: int) -> None:
        self.token = np.zeros(size, np.int32)
        self.pos = np.zeros(size, np.int32)
        self.seq_id = np.zeros(size, np.int32)
        self.logits = np.zeros(size, np.int8)
        self._n_seq_id = np.ones(size, np.int32)
        self._seq_ids = self.seq_id.ctypes.data + 4 * np.arange(size, dtype=np.uintp)
        self.struct = self._make_struct()

    def _make_struct(self) -> Any:
        batch = lib.llama_batch()
        batch.embd = None
        for name, array in (("token", self.token), ("pos", self.pos), ("logits", self.logits)):
            setattr(batch, name, pointer_to(array, type(getattr(batch, name))))
        batch.n_seq_id = pointer_to(self._n_seq_id, type(batch.n_seq_id))
        batch.seq_id = pointer_to(self._seq_ids, type(batch.seq_id))
        return batch

    def fill(self, batch: Batch) -> list[int]:
        """Writes a batch; returns the row of each item's last token, which the rows of its draft follow."""
        ends = self.put(
            (item.sequence.slot.seq_id if item.sequence.slot else 0, item.start, item.tokens) for item in batch.items
        )
        rows = [end - len(item.draft) for end, item in zip(ends, batch.items, strict=True)]
        for row, end, item in zip(rows, ends, batch.items, strict=True):
            self.logits[row : end + 1] = item.wants_logits
        return rows

    def put(self, parts: Iterable[tuple[int, int, Tokens[int]]]) -> list[int]:
        """Writes parts of sequences: seq_id, first position, tokens. Returns the row of each part's last token.

        llama.cpp computes the logits of those rows.
        """
        end, rows = 0, []
        for seq_id, position, tokens in parts:
            start, end = end, end + len(tokens)
            self.token[start:end] = tokens
            self.pos[start:end] = range(position, position + len(tokens))
            self.seq_id[start:end] = seq_id
            rows.append(end - 1)
        self.logits[:end] = 0
        self.logits[rows] = 1
        self.struct.n_tokens = end
        return rows


def pointer_to(array: npt.NDArray[Any], kind: Any) -> Any:
    """A pointer of ctypes' type `kind` to the numbers of an array, which must outlive the pointer."""
    return ctypes.cast(ctypes.c_void_p(array.ctypes.data), kind)
