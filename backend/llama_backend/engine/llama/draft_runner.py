"""A draft model's context of llama.cpp."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llama_backend.engine.llama.model import Model
from llama_backend.engine.llama.runner import ModelRunner
from llama_backend.engine.placement.kv_plan import KVPlan
from llama_backend.engine.speculation.draft_model import Chunk
from llama_backend.errors import ModelUnreadable

_UNUSED = 128
"""Tokens by which vocabularies may differ in size, as in llama.cpp (common/speculative.cpp)."""


class DraftRunner(ModelRunner):
    """The Guesser of a DraftModel: computes tokens and returns the likeliest next ones, without sampling."""

    def __init__(self, model: Model, plan: KVPlan, threads: Callable[[], int], n_vocab: int) -> None:
        """`threads` returns how many the large model uses at the moment. `n_vocab` is the size of its vocabulary:
        ids beyond the smaller of both vocabularies are unused, and are never drafted.
        """
        super().__init__(model, plan, threads())
        self._threads_now = threads
        self._known = min(n_vocab, model.vocab.size)

    def likeliest(self, chunks: list[Chunk]) -> list[tuple[int, float]]:
        """See Guesser."""
        self._use(self._threads_now())
        rows = self._arrays.put([(chunk.seq_id, chunk.start, chunk.tokens) for chunk in chunks])
        self._compute()
        return [self._likeliest(row) for row in rows]

    def _likeliest(self, row: int) -> tuple[int, float]:
        logits = self._row(row)[: self._known]
        token = int(logits.argmax())
        return token, float(1 / np.exp(logits - logits[token]).sum())


def check_draft_model(model: Model, draft: Model, path: str) -> None:
    """Raises ModelUnreadable where `draft` cannot draft for `model`: token ids must mean the same in both."""
    for each, owner in ((model, "the model's"), (draft, "its")):
        if not each.supports_partial_removal or not each.states_are_complete:
            raise _unfit(path, f"tokens cannot be removed from {owner} KV cache")
    ours, theirs = model.vocab, draft.vocab
    if abs(ours.size - theirs.size) > _UNUSED:
        raise _unfit(path, f"its vocabulary has {theirs.size} tokens, but the model's has {ours.size}")
    shared = range(min(ours.size, theirs.size))
    for token in shared:
        if ours.piece(token) != theirs.piece(token) or ours.is_eog(token) != theirs.is_eog(token):
            pair = f"{theirs.piece(token)!r}, but in the model's it is {ours.piece(token)!r}"
            raise _unfit(path, f"token {token} of its vocabulary is {pair}")
    differing = {(text, token) for text, token in ours.control.items() ^ theirs.control.items() if token in shared}
    if differing:
        raise _unfit(path, f"the control token {min(differing)[0]} has another id in it, or is missing")


def _unfit(path: str, reason: str) -> ModelUnreadable:
    return ModelUnreadable(f"{path}: this model cannot be the draft model: {reason}")
