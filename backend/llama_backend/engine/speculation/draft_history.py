"""What speculation knows of one sequence: what may come next, how likely that is, and what trying it has cost."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from itertools import accumulate, takewhile
from operator import mul

from llama_backend.engine.speculation.acceptance import Acceptance, DraftTrust, OwnAcceptance, follow
from llama_backend.engine.speculation.lookup import PromptLookup

_LEAST_CHANCE = 0.1
"""A token that is less likely than this to be accepted is not drafted."""
_LOSS = 0.02
"""The part of its time that speculation may cost a sequence, its own or that of others."""
_STAKE = 2.0
"""Plain steps that a draft may lose beyond that, until more is won back."""
_CREDIT = 8.0
"""Plain steps that a sequence is ahead by speculation and may fall back again; being further ahead does not count."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that may come next, and for each the probability that it is accepted, with all before it."""

    tokens: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)


class Drafting:
    """Of one sequence, whose `tokens` grow at the end."""

    __slots__ = (
        "_acceptance",
        "_asked",
        "_lookup",
        "_model",
        "_trust",
        "_usual",
        "accepted",
        "drafted",
        "invested",
        "lag",
    )

    def __init__(self, tokens: Tokens[int], everybody: Acceptance, trust: DraftTrust) -> None:
        """`everybody` is how often lookups were right for all sequences, `trust` how often a draft model was."""
        self._lookup = PromptLookup(tokens)
        self._acceptance, self._model = OwnAcceptance(everybody), OwnAcceptance(trust.acceptance)
        self._asked: deque[float] = deque()
        self._trust = trust
        self._usual = trust.start()
        self.lag = 0.0
        """Plain steps that it is behind what it would have got without drafts, its own and those of others."""
        self.drafted = 0
        """Tokens that were computed along."""
        self.accepted = 0
        """Those of them that were sampled."""
        self.invested = 0.0
        """Plain steps that went by while a draft model read what it has so far."""

    def advance(self, token: int, drafted: int | None) -> None:
        """Takes in a token that was appended, and whether it was what was drafted, or would have been by lookup.

        So acceptance of lookups is measured on every token, at no cost, and one is tried only where it is to pay.
        """
        self.accepted += token == drafted
        if self._asked and drafted is not None:
            self._model.learn(self._asked.popleft(), token == drafted)
        run = self._lookup.run
        hit = self._lookup.advance()
        if hit is not None:
            self._acceptance.learn(run, hit)

    def hope(self, depth: int) -> float:
        """How many of `depth` tokens of a draft model are expected to come."""
        return sum(self._usual**length for length in range(1, depth + 1))

    def weigh(self, draft: list[tuple[int, float]]) -> Guess:
        """A draft model's tokens, with what became of such tokens."""
        self._asked = deque(probability for _, probability in draft)
        each = [self._model.chance(probability) for probability in self._asked]
        for chance in each:
            self._usual = follow(self._usual, chance)
            self._trust.learn(chance)
        return Guess([token for token, _ in draft], list(accumulate(each, mul)))

    def guess(self, limit: int) -> Guess:
        """At most `limit` tokens that were looked up, as far as they are likely enough."""
        self._asked.clear()
        run = self._lookup.run
        if not run or limit < 1:
            return Guess()
        each = (self._acceptance.chance(run + index) for index in range(limit))
        chances = list(takewhile(lambda chance: chance >= _LEAST_CHANCE, accumulate(each, mul)))
        return Guess(self._lookup.draft(len(chances)), chances)

    def bears(self, steps: float, expected: float, tokens: int) -> bool:
        """Whether a step that takes as long as `steps` plain ones and brings `expected` tokens harms it.

        It must not fall behind by what is expected, nor by more than the stake if none of the draft comes. `tokens`
        is how many it has got so far.
        """
        allowed = _LOSS * tokens - self.lag
        stake = _STAKE if expected > 1 else 0.0
        return steps - expected <= allowed and steps - 1 <= allowed + stake

    def charge(self, steps: float) -> None:
        """Notes that a draft model took as long as `steps` plain steps."""
        self.lag += steps

    def invest(self, steps: float) -> None:
        """Notes that a draft model read for as long as `steps` plain steps, so that it can guess."""
        self.invested += steps

    def settle(self, steps: float, tokens: int) -> None:
        """Notes what a step with drafts, of this sequence or of others, took in plain steps and brought in tokens."""
        self.lag = max(self.lag + steps - tokens, -_CREDIT)
