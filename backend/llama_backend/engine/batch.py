"""The tokens that one step computes, and what can go wrong with sampling."""

from __future__ import annotations

from dataclasses import dataclass, field

from llama_backend.engine.sequence import Sequence


class DeadEnd(Exception):
    """A grammar allows none of the model's tokens to come next."""


@dataclass(slots=True)
class BatchItem:
    """Consecutive tokens of one sequence. Its logits are needed if these are its last tokens."""

    sequence: Sequence
    start: int
    count: int
    draft: list[int] = field(default_factory=list)
    """Drafted tokens, computed behind the others."""

    @property
    def tokens(self) -> list[int]:
        """All tokens, with the draft."""
        return self.sequence.tokens[self.start : self.start + self.count] + self.draft

    @property
    def wants_logits(self) -> bool:
        return self.start + self.count == len(self.sequence.tokens)


@dataclass(slots=True)
class Batch:
    """What one `llama_decode` computes."""

    items: list[BatchItem] = field(default_factory=list)
    prefill: int = 0
    """Tokens of prompts."""
    decode: int = 0
    """Tokens of sequences that generate."""
    drafted: int = 0
    """Tokens of drafts."""
    delays_prompt: bool = False
    """Whether the prompt of a sequence waits for the end of this step."""

    @property
    def size(self) -> int:
        """All tokens."""
        return self.prefill + self.decode + self.drafted
