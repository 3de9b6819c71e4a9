"""Decides when a draft model guesses: where that is expected to save more time than it takes."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter

from llama_backend.engine.sequence import Sequence
from llama_backend.engine.speculation.draft_history import Guess
from llama_backend.engine.speculation.draft_model import DraftModel
from llama_backend.engine.speculation.relative_cost import LEAST_GAIN, RelativeCost, may_delay_all

_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16)
"""The lengths of drafts that are considered."""
_AHEAD = 128
"""The least further tokens that an answer is expected to have, unless a limit ends it sooner."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """How many tokens are guessed."""

    depth: int
    """Tokens for each sequence; 0 means no guess."""
    rate: float
    """Tokens of each sequence that are expected in the time of a plain step."""


class Drafter:
    """Decides when the draft model works.

    To guess, it must have read the same tokens as the large model. It only reads where the rest of the answer is
    expected to save more time than all reading for this answer takes.
    """

    def __init__(self, model: DraftModel, relative: RelativeCost) -> None:
        self._model = model
        self._relative = relative
        self.seconds = 0.0
        """Seconds that the draft model has worked so far."""

    def clear(self) -> None:
        """Frees all cells of the draft model."""
        self._model.clear()

    def improve(self, sequences: list[Sequence], guesses: list[Guess], limits: list[int], room: int) -> float:
        """Replaces guesses from which less than one token is expected by guesses of the draft model, where that pays.

        `limits` are the most tokens of each guess, and `room` of all. Returns the time of guessing in plain steps.
        """
        asked = [
            index
            for index, guess in enumerate(guesses)
            if limits[index] > 0 and sequences[index].draft_history is not None and sum(guess.chances) < 1
        ]
        choice = self._choose(sequences, asked, room) if asked else _Choice(0, 1.0)
        if not choice.depth:
            return 0.0
        begin = perf_counter()
        behind = [index for index in asked if self._model.is_behind(sequences[index])]
        if behind:
            self._read(sequences, asked, behind, choice.rate)
        else:
            self._guess(sequences, guesses, asked, [min(choice.depth, limit) for limit in limits])
        seconds = perf_counter() - begin
        self.seconds += seconds
        return 0.0 if behind else seconds / self._relative.plain_seconds(len(sequences))

    def _choose(self, sequences: list[Sequence], asked: list[int], room: int) -> _Choice:
        """How many tokens to guess for each of the sequences `asked`."""
        chosen, best = 0, LEAST_GAIN * len(sequences)
        for depth in _DEPTHS:
            drafted = depth * len(asked)
            steps = self._relative.steps(len(sequences), drafted, self._model.seconds(len(asked), depth))
            expected = [1.0] * len(sequences)
            for index in asked:
                expected[index] += _expected_tokens(sequences[index], depth)
            if drafted <= room and sum(expected) > best * steps and may_delay_all(sequences, expected, steps):
                chosen, best = depth, sum(expected) / steps
        return _Choice(chosen, best / len(sequences))

    def _read(self, sequences: list[Sequence], asked: list[int], behind: list[int], rate: float) -> None:
        """Reads the sequences `behind`, if that is expected to save more time for each sequence `asked` than it takes.

        The time must also be within the allowed delay of all other sequences.
        """
        plain = self._relative.plain_seconds(len(sequences))
        ahead = sum(self._model.reading_seconds(sequences[index]) for index in behind) / plain
        others = [sequence for index, sequence in enumerate(sequences) if index not in asked]
        if any(ahead > _expected_gain(sequences[index], rate) for index in asked):
            return
        if not may_delay_all(others, [1.0] * len(others), 1 + ahead):
            return
        begin = perf_counter()
        self._model.catch_up([sequences[index] for index in behind])
        steps = (perf_counter() - begin) / plain
        for index, sequence in enumerate(sequences):
            if sequence.draft_history is not None:
                history = sequence.draft_history
                history.add_reading(steps) if index in asked else history.add_delay(steps)

    def _guess(self, sequences: list[Sequence], guesses: list[Guess], asked: list[int], limits: list[int]) -> None:
        drafts = self._model.guess([sequences[index] for index in asked], [limits[index] for index in asked])
        for index, draft in zip(asked, drafts, strict=True):
            history = sequences[index].draft_history
            if history is not None and draft:
                guesses[index] = history.model_guess(draft)


def _expected_tokens(sequence: Sequence, depth: int) -> float:
    return sequence.draft_history.expected_tokens(depth) if sequence.draft_history is not None else 0.0


def _expected_gain(sequence: Sequence, rate: float) -> float:
    """Plain steps that guesses are expected to save in the rest of an answer, minus those already spent on reading."""
    left = max(_AHEAD, sequence.n_completion)
    if sequence.remaining is not None:
        left = min(left, sequence.remaining)
    read = sequence.draft_history.reading if sequence.draft_history is not None else 0.0
    return left * (1 - 1 / rate) - read
