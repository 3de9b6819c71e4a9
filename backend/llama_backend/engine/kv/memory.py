"""What llama.cpp's memory of KV cells can do, and the rules for using it.

In a unified pool sequences can share cells: to give a sequence the cells of another, only a table is changed. Where
each sequence has cells of its own (split), they are copied, and llama.cpp only queues the copy: when the next
`llama_decode` begins, all cells of the source are copied as they are then. So for a sequence that a queued copy reads
or writes:

- its cells do not yet belong to its tokens, so a state that is saved would be wrong;
- a state that is loaded into the copy's target is overwritten, and one loaded into its source is copied by mistake;
- removing tokens is safe, since that only changes the table; so is another copy, since copies run in their order, and
  so is computing, since the copies run first.

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
        """Whether `share` can be used; not for a model with a single state for all tokens (Mamba)."""
        ...

    def share(self, source: int, target: int, length: int) -> None:
        """Gives the empty sequence `target` the first `length` cells of `source`, shared or copied."""
        ...

    def has_queued_copy(self, seq_id: int) -> bool:
        """Whether a copy that has yet to run reads or writes the cells of a sequence."""
        ...

    def dump(self, seq_id: int) -> Bytes | None:
        """The state of a sequence that no queued copy touches; None where llama.cpp gives none."""
        ...

    def load(self, seq_id: int, data: Bytes, length: int) -> bool:
        """Loads a state of `length` tokens into an empty sequence that no queued copy touches.

        False, with the sequence still empty, where the state does not fit.
        """
        ...
