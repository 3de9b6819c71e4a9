"""What llama.cpp's memory of KV cells can do, and the rules that its caller has to keep.

In a unified pool sequences may share cells: giving a sequence the cells of another is a note in a table. Where each
sequence has cells of its own (split), they are copied, and llama.cpp only queues that copy: of all cells of the
source, whatever is in them when the next `llama_decode` begins. What that means for a sequence that a queued copy
reads or writes:

- its cells are not what their tokens say: a state taken from them is of other tokens;
- a state put into the copy's target is overwritten, and one put into its source is copied in place of what was meant;
- removing tokens is safe, since that only changes the table; so is another copy, since copies run in their order, and
  computing, since the copies run first.

So between `share` and the next decode such a sequence is neither dumped nor loaded, nor given to another request.
"""

from __future__ import annotations

from typing import Protocol

Bytes = bytes | bytearray | memoryview


class NoRoom(Exception):
    """llama.cpp found no KV cells for a batch; the cells are as before."""


class KVMemory(Protocol):
    """The part of llama.cpp's memory that the cache works on."""

    def remove(self, seq_id: int, start: int) -> bool:
        """Frees the cells of a sequence from position `start` on; False where the model cannot do that."""
        ...

    @property
    def can_share(self) -> bool:
        """Whether `share` can be used: not where a model keeps one state that sums up all tokens (Mamba)."""
        ...

    def share(self, source: int, target: int, length: int) -> None:
        """Gives the empty sequence `target` the first `length` cells of `source`: shared or copied."""
        ...

    def has_queued_copy(self, seq_id: int) -> bool:
        """Whether a copy that has yet to run reads or writes the cells of a sequence."""
        ...

    def dump(self, seq_id: int) -> Bytes | None:
        """The state of a sequence's cells, which no queued copy touches; None where llama.cpp has none to give."""
        ...

    def load(self, seq_id: int, data: Bytes, length: int) -> bool:
        """Gives the empty sequence, which no queued copy touches, the cells of a state of `length` tokens.

        False, and no cells, where they do not fit.
        """
        ...
