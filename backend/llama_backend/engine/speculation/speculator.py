"""Decides which drafts a step computes: tokens that may come next, kept as far as the same tokens are sampled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

from llama_backend.engine.batch import Batch
from llama_backend.engine.cost_model import CostModel
from llama_backend.engine.kv.cache import KVCache
from llama_backend.engine.sequence import Sequence
from llama_backend.engine.speculation.acceptance import Acceptance, ModelAcceptance
from llama_backend.engine.speculation.draft_history import DraftHistory, Guess
from llama_backend.engine.speculation.draft_model import DraftModel
from llama_backend.engine.speculation.drafter import Drafter
from llama_backend.engine.speculation.relative_cost import LEAST_GAIN, RelativeCost, may_delay_all

MOST_DRAFTED = 64
"""The most tokens of all drafts of a step."""
_LONGEST = 32
"""The most tokens of one draft."""
_SIZES = frozenset((1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_DRAFTED))
"""The numbers of drafted tokens that are considered; they are few, so that the cost of each is soon known."""
_PAUSE = 16
"""Steps without drafts after llama.cpp had no room for a batch with drafts."""


class Speculator:
    """Decides for each step which sequences get a draft and how long it is.

    A step gets drafts if it is expected to bring more tokens per second than a plain step, by the measured times of
    steps and the acceptance of earlier drafts, and if no sequence is expected to get its tokens much later because of
    them. Drafts only use spare time and spare KV cells: none are computed beside prompts, and no cells are freed for
    them.
    """

    def __init__(
        self,
        cache: KVCache,
        costs: CostModel,
        context: int,
        n_batch: int,
        is_eog: Callable[[int], bool],
        model: DraftModel | None = None,
        is_on: bool = True,
    ) -> None:
        """`context` is the most tokens of a sequence, `n_batch` the most of a step, and `model` a draft model."""
        self._is_on = is_on and cache.can_share
        self._cache = cache
        self._context = context
        self._n_batch = n_batch
        self._is_eog = is_eog
        self._relative = RelativeCost(costs)
        self._lookups = Acceptance.by_run()
        self._drafter = Drafter(model, self._relative) if model is not None else None
        self._model_acceptance = ModelAcceptance()
        self._pause = 0

    def advance(self, sequence: Sequence, drafted: int | None) -> None:
        """Learns from a token that was appended to a sequence; `drafted` is what was drafted in its place."""
        if sequence.draft_history is not None:
            sequence.draft_history.advance(sequence.tokens[-1], drafted)
        elif self._is_on and sequence.remaining != 0:
            sequence.draft_history = DraftHistory(sequence.tokens, self._lookups, self._model_acceptance)

    @property
    def draft_seconds(self) -> float:
        """Seconds that the draft model has worked so far."""
        return self._drafter.seconds if self._drafter is not None else 0.0

    def clear(self) -> None:
        """Frees all cells of the draft model."""
        if self._drafter is not None:
            self._drafter.clear()

    def extend(self, batch: Batch) -> None:
        """Adds drafts to a batch where they pay, if it computes no prompt and delays none."""
        self._pause = max(self._pause - 1, 0)
        if self._pause or not self._may_draft(batch):
            return
        sequences = [item.sequence for item in batch.items]
        room = min(MOST_DRAFTED, self._n_batch - len(sequences), self._cache.free - len(sequences))
        guesses, spent = self._guesses(sequences, room)
        counts = self._plan(sequences, guesses, room)
        for item, guess, count in zip(batch.items, guesses, counts, strict=True):
            history = item.sequence.draft_history
            if history is not None:
                item.draft = guess.tokens[:count]
                history.drafted += count
                history.add_delay(spent)
        batch.drafted = sum(counts)

    def refuse(self) -> None:
        """Notes that llama.cpp had no room for a batch with drafts; the next batches get none."""
        self._pause = _PAUSE

    def record(self, batch: Batch, before: list[int]) -> None:
        """Learns from a batch with drafts; `before` is how many tokens its sequences had before it."""
        steps = self._relative.taken(len(batch.items), batch.drafted)
        for item, had in zip(batch.items, before, strict=True):
            if item.sequence.draft_history is not None:
                item.sequence.draft_history.record(steps, len(item.sequence.tokens) - had)

    def _may_draft(self, batch: Batch) -> bool:
        """Whether drafts would take no time from a prompt, and the time of a plain step is known."""
        if not self._is_on or batch.prefill or batch.delays_prompt:
            return False
        return self._relative.is_known(len(batch.items))

    def _guesses(self, sequences: list[Sequence], room: int) -> tuple[list[Guess], float]:
        """A guess for each sequence, and how many plain steps a draft model took for them."""
        limits = [min(_LONGEST, room, self._left(sequence)) for sequence in sequences]
        guesses = [_look_up(sequence, limit) for sequence, limit in zip(sequences, limits, strict=True)]
        spent = self._drafter.improve(sequences, guesses, limits, room) if self._drafter is not None else 0.0
        return [self._without_end(guess) for guess in guesses], spent

    def _left(self, sequence: Sequence) -> int:
        """The most tokens that a draft may have, since one more is sampled after it."""
        left = self._context - len(sequence.tokens)
        return (left if sequence.remaining is None else min(left, sequence.remaining)) - 1

    def _without_end(self, guess: Guess) -> Guess:
        """A guess without the token that would end the answer, and without what follows it."""
        tokens = list(takewhile(lambda token: not self._is_eog(token), guess.tokens))
        return Guess(tokens, guess.chances[: len(tokens)])

    def _plan(self, sequences: list[Sequence], guesses: list[Guess], room: int) -> list[int]:
        """How many tokens of each guess are worth computing; the likeliest are chosen first."""
        ranked = sorted(
            ((chance, index) for index, guess in enumerate(guesses) for chance in guess.chances),
            key=lambda each: -each[0],
        )[: max(room, 0)]
        counts, expected = [0] * len(sequences), [1.0] * len(sequences)
        chosen, best = counts.copy(), LEAST_GAIN * len(sequences)
        for size, (chance, index) in enumerate(ranked, 1):
            counts[index] += 1
            expected[index] += chance
            if size in _SIZES or size == len(ranked):
                steps = self._relative.steps(len(sequences), size)
                if sum(expected) > best * steps and may_delay_all(sequences, expected, steps):
                    chosen, best = counts.copy(), sum(expected) / steps
        return chosen


def _look_up(sequence: Sequence, limit: int) -> Guess:
    return Guess() if sequence.draft_history is None else sequence.draft_history.lookup_guess(limit)
