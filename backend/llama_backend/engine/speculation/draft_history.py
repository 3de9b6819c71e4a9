"""What speculation knows of one sequence: what may come next, how likely that is, and how far drafts delayed it.

Time is counted in plain steps: as many as would have been run meanwhile without drafts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from operator import mul

from llama_backend.engine.speculation.acceptance import Acceptance, ModelAcceptance, SequenceAcceptance, learned
from llama_backend.engine.speculation.lookup import PromptLookup

_LEAST_CHANCE = 0.1
"""A token that is less likely than this to be accepted is not drafted."""
_DELAY_SHARE = 0.02
"""The part of its time by which speculation, its own or that of others, may delay a sequence."""
_TRIAL_DELAY = 2.0
"""Plain steps by which a draft may delay it beyond that, until they are won back."""
_MOST_AHEAD = 8.0
"""Plain steps that a sequence is ahead by speculation and may lose again; being further ahead does not count."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that may come next, and for each the probability that it is accepted, with all before it."""

    tokens: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)


class DraftHistory:
    """The guesses for one sequence, whose `tokens` grow at the end, and what became of them."""

    __slots__ = (
        "_acceptance",
        "_asked",
        "_lookup",
        "_model_acceptance",
        "_of_all",
        "_usual_chance",
        "accepted",
        "delay",
        "drafted",
        "reading",
    )

    def __init__(self, tokens: Tokens[int], lookups: Acceptance, model: ModelAcceptance) -> None:
        """`lookups` is how often lookups were right for all sequences, `model` how often a draft model was."""
        self._lookup = PromptLookup(tokens)
        self._acceptance, self._model_acceptance = SequenceAcceptance(lookups), SequenceAcceptance(model.by_probability)
        self._asked: deque[float] = deque()
        """The draft model's probabilities of the tokens that it guessed last."""
        self._of_all = model
        self._usual_chance = model.start()
        self.delay = 0.0
        """Plain steps that it is behind where it would be without drafts, its own and those of others."""
        self.drafted = 0
        """Tokens that were computed along."""
        self.accepted = 0
        """Those of them that were sampled."""
        self.reading = 0.0
        """Plain steps that went by while a draft model read what it has so far."""

    def advance(self, token: int, drafted: int | None) -> None:
        """Takes in a token that was appended, and what was drafted in its place.

        It is compared with what lookup would have guessed, too. So acceptance of lookups is measured on every token,
        at no cost, and a lookup is only tried where it is expected to pay.
        """
        self.accepted += token == drafted
        if self._asked and drafted is not None:
            self._model_acceptance.learn(self._asked.popleft(), token == drafted)
        run = self._lookup.run
        hit = self._lookup.advance()
        if hit is not None:
            self._acceptance.learn(run, hit)

    def expected_tokens(self, depth: int) -> float:
        """How many of `depth` tokens of a draft model are expected to come."""
        return sum(self._usual_chance**length for length in range(1, depth + 1))

    def model_guess(self, draft: list[tuple[int, float]]) -> Guess:
        """The guess of a draft model, with the chances that such tokens had before."""
        self._asked = deque(probability for _, probability in draft)
        each = [self._model_acceptance.chance(probability) for probability in self._asked]
        for chance in each:
            self._usual_chance = learned(self._usual_chance, chance)
            self._of_all.learn(chance)
        return Guess([token for token, _ in draft], list(accumulate(each, mul)))

    def lookup_guess(self, limit: int) -> Guess:
        """At most `limit` tokens that were looked up, as far as they are likely enough."""
        self._asked.clear()
        run = self._lookup.run
        if not run or limit < 1:
            return Guess()
        each = (self._acceptance.chance(run + index) for index in range(limit))
        chances = list(takewhile(lambda chance: chance >= _LEAST_CHANCE, accumulate(each, mul)))
        return Guess(self._lookup.draft(len(chances)), chances)

    def may_delay(self, steps: float, expected: float, tokens: int) -> bool:
        """Whether a step may take as long as `steps` plain ones, if it brings `expected` tokens.

        The step must not delay it too much by what is expected, nor by more than a trial may if none of the draft
        comes. `tokens` is how many the sequence has got so far.
        """
        allowed = _DELAY_SHARE * tokens - self.delay
        trial = _TRIAL_DELAY if expected > 1 else 0.0
        return steps - expected <= allowed and steps - 1 <= allowed + trial

    def add_delay(self, steps: float) -> None:
        """Notes that a draft model took as long as `steps` plain steps."""
        self.delay += steps

    def add_reading(self, steps: float) -> None:
        """Notes that a draft model read for as long as `steps` plain steps, so that it can guess."""
        self.reading += steps

    def record(self, steps: float, tokens: int) -> None:
        """Notes what a step with drafts, of this sequence or of others, took in plain steps and brought in tokens."""
        self.delay = max(self.delay + steps - tokens, -_MOST_AHEAD)
