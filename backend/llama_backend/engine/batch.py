"""What one step computes, and what can go wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from llama_backend.engine.sequence import Sequence


class DeadEnd(Exception):
    """No token of the vocabulary can come next in what a grammar describes."""


@dataclass(slots=True)
class BatchItem:
    """Consecutive tokens of one sequence; its logits are wanted where no token is left to compute behind them."""

    sequence: Sequence
    start: int
    count: int
    draft: list[int] = field(default_factory=list)
    """Tokens that may come next, computed behind the others."""

    @property
    def tokens(self) -> list[int]:
        """All of them, with the draft."""
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
    holds_up: bool = False
    """Somebody's prompt waits for the end of this step."""

    @property
    def size(self) -> int:
        """All tokens."""
        return self.prefill + self.decode + self.drafted
