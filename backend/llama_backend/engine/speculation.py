"""Drafts: tokens that may come next are computed along in a step, and count as far as they are what is sampled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile
from time import perf_counter

from llama_backend.engine.acceptance import Acceptance
from llama_backend.engine.budget import PrefillBudget
from llama_backend.engine.draft_model import DraftModel
from llama_backend.engine.drafting import Drafting, Guess
from llama_backend.engine.kv_cache import KVCache
from llama_backend.engine.scheduler import Batch
from llama_backend.engine.sequence import Sequence
from llama_backend.engine.step_cost import StepCost

MOST_DRAFTED = 64
"""Tokens of all drafts of a step."""
_LONGEST = 32
"""Tokens of one draft."""
_SIZES = frozenset((1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, MOST_DRAFTED))
"""Numbers of drafted tokens that are considered: a few, so that what each costs is soon known."""
_PAUSE = 16
"""Steps without drafts after llama.cpp had no room for some."""
_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16)
"""Tokens of a draft model's draft that are considered."""
_LEAST_GAIN = 1.05
"""How many times as many tokens a second a step with drafts must promise."""


class Speculator:
    """Decides for each step which sequences get a draft and how long it is.

    A step is drafted for where it is expected to bring more tokens a second than a plain one, by what steps of its
    size were measured to take and by how many drafted tokens came; where no sequence falls behind what it would get
    without; and only from time and KV cells that nobody else asks for: never beside a prompt that is computed, never
    from cells that hold anything.
    """

    def __init__(
        self,
        cache: KVCache,
        budget: PrefillBudget,
        context: int,
        n_batch: int,
        is_eog: Callable[[int], bool],
        is_on: bool,
        model: DraftModel | None = None,
    ) -> None:
        self._is_on = is_on and cache.can_share
        self._cache = cache
        self._budget = budget
        self._context = context
        self._n_batch = n_batch
        self._is_eog = is_eog
        self._cost = StepCost()
        self._everybody = Acceptance.by_run()
        self._model = model
        self._by_model = Acceptance.by_probability()
        self._pause = 0

    def advance(self, sequence: Sequence, drafted: int | None) -> None:
        """Takes in a token that was appended to a sequence, where `drafted` was what the draft had there."""
        if sequence.drafting is not None:
            sequence.drafting.advance(sequence.tokens[-1], drafted)
        elif self._is_on and sequence.remaining != 0:
            sequence.drafting = Drafting(sequence.tokens, self._everybody, self._by_model)

    def extend(self, batch: Batch) -> None:
        """Adds drafts to a batch, if it is one of tokens that are generated and that pays."""
        self._pause = max(self._pause - 1, 0)
        decoding = len(batch.items)
        if self._pause or not self._is_on or batch.prefill or not self._cost.knows(decoding):
            return
        room = min(MOST_DRAFTED, self._n_batch - decoding, self._cache.free - decoding)
        sequences = [item.sequence for item in batch.items]
        guesses = [self._look_up(sequence, min(_LONGEST, room)) for sequence in sequences]
        if self._model is not None:
            self._ask(self._model, sequences, guesses, room)
        counts = self._plan(sequences, guesses, room)
        for item, guess, count in zip(batch.items, guesses, counts, strict=True):
            if count and item.sequence.drafting is not None:
                item.draft = guess.tokens[:count]
                item.sequence.drafting.drafted += count
        batch.drafted = sum(counts)

    def refuse(self) -> None:
        """Notes that llama.cpp had no room for a batch with drafts: the next ones have none."""
        self._pause = _PAUSE

    def observe(self, batch: Batch, seconds: float) -> None:
        """Takes in how long a batch took."""
        if not batch.prefill:
            self._cost.token_seconds = self._budget.token_seconds
            self._cost.observe(batch.size, seconds)

    def settle(self, batch: Batch, before: list[int]) -> None:
        """Takes in what a batch with drafts brought; `before` is how many tokens its sequences had."""
        steps = self._cost.seconds(batch.size) / self._cost.seconds(len(batch.items))
        for item, had in zip(batch.items, before, strict=True):
            if item.sequence.drafting is not None:
                item.sequence.drafting.settle(steps, len(item.sequence.tokens) - had)

    def _look_up(self, sequence: Sequence, limit: int) -> Guess:
        if sequence.drafting is None:
            return Guess()
        return self._without_end(sequence.drafting.guess(min(limit, self._left(sequence))))

    def _left(self, sequence: Sequence) -> int:
        """How many tokens a draft may have at most: one more is sampled behind it."""
        left = self._context - len(sequence.tokens)
        return (left if sequence.remaining is None else min(left, sequence.remaining)) - 1

    def _without_end(self, guess: Guess) -> Guess:
        tokens = list(takewhile(lambda token: not self._is_eog(token), guess.tokens))
        return Guess(tokens, guess.chances[: len(tokens)])

    def _ask(self, model: DraftModel, sequences: list[Sequence], guesses: list[Guess], room: int) -> None:
        """Has the draft model guess for those for whom nothing likely was found, where that is expected to pay.

        Where it has yet to read a prompt it reads on in that instead; only others count the time for it as lost.
        """
        asked = [index for index, guess in enumerate(guesses) if sum(guess.chances) < 1]
        depth = self._depth(model, sequences, asked, room)
        if not depth:
            return
        begin = perf_counter()
        behind = next((sequences[index] for index in asked if model.is_behind(sequences[index])), None)
        if behind is not None:
            model.catch_up(behind)
        else:
            self._guess(model, sequences, guesses, asked, depth)
        steps = (perf_counter() - begin) / self._cost.seconds(len(sequences))
        for sequence in sequences:
            if sequence.drafting is not None and sequence is not behind:
                sequence.drafting.charge(steps)

    def _guess(
        self, model: DraftModel, sequences: list[Sequence], guesses: list[Guess], asked: list[int], depth: int
    ) -> None:
        limits = [min(depth, self._left(sequences[index])) for index in asked]
        drafts = model.guess([sequences[index] for index in asked], limits)
        for index, draft in zip(asked, drafts, strict=True):
            drafting = sequences[index].drafting
            if drafting is not None and draft:
                guesses[index] = self._without_end(drafting.weigh(draft))

    def _depth(self, model: DraftModel, sequences: list[Sequence], asked: list[int], room: int) -> int:
        """How many tokens the draft model is to guess for each that is asked for; 0 where that does not pay."""
        chosen, best = 0, _LEAST_GAIN * len(sequences)
        for depth in _DEPTHS if asked else ():
            drafted = depth * len(asked)
            steps = self._steps(len(sequences), drafted, model.seconds(len(asked), depth))
            expected = [1.0] * len(sequences)
            for index in asked:
                drafting = sequences[index].drafting
                expected[index] += drafting.hope(depth) if drafting is not None else 0.0
            if drafted <= room and sum(expected) > best * steps and self._bear(sequences, expected, steps):
                chosen, best = depth, sum(expected) / steps
        return chosen

    def _plan(self, sequences: list[Sequence], guesses: list[Guess], room: int) -> list[int]:
        """How many tokens of each guess are worth computing along; the likeliest come first."""
        ranked = sorted(
            ((chance, index) for index, guess in enumerate(guesses) for chance in guess.chances),
            key=lambda each: -each[0],
        )[: max(room, 0)]
        counts, expected = [0] * len(sequences), [1.0] * len(sequences)
        chosen, best = counts.copy(), _LEAST_GAIN * len(sequences)
        for size, (chance, index) in enumerate(ranked, 1):
            counts[index] += 1
            expected[index] += chance
            if size in _SIZES or size == len(ranked):
                steps = self._steps(len(sequences), size)
                if sum(expected) > best * steps and self._bear(sequences, expected, steps):
                    chosen, best = counts.copy(), sum(expected) / steps
        return chosen

    def _steps(self, decoding: int, drafted: int, more: float = 0.0) -> float:
        """What a step and `more` seconds take as a multiple of a plain step; infinity where that is too long."""
        seconds = self._cost.seconds(decoding + drafted) + more
        if seconds > self._budget.longest(beside=decoding > 1):
            return float("inf")
        return seconds / self._cost.seconds(decoding)

    @staticmethod
    def _bear(sequences: list[Sequence], expected: list[float], steps: float) -> bool:
        return all(
            sequence.drafting is None or sequence.drafting.bears(steps, tokens, sequence.n_completion)
            for sequence, tokens in zip(sequences, expected, strict=True)
        )
