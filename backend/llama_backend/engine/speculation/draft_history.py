"""What speculation knows about one sequence: likely next tokens, how often they were right, and the delay by drafts.

Time is measured in plain steps, that is, steps without drafts that could have been run in the same time.
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
"""The part of its time by which drafts, its own or those of others, may delay a sequence."""
_TRIAL_DELAY = 2.0
"""Plain steps by which a draft may delay a sequence beyond that, until later drafts have saved them again."""
_MOST_AHEAD = 8.0
"""The most plain steps of an earlier gain that speculation may lose again."""


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that may come next; for each of them, the probability that it and all before it are accepted."""

    tokens: list[int] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)


class DraftHistory:
    """The guesses for one sequence and what became of them. Its `tokens` grow at the end."""

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
        """`lookups` and `model` are the acceptance of lookups and of a draft model for all sequences."""
        self._lookup = PromptLookup(tokens)
        self._acceptance, self._model_acceptance = SequenceAcceptance(lookups), SequenceAcceptance(model.by_probability)
        self._asked: deque[float] = deque()
        """The probabilities that the draft model gave the tokens of its last guess."""
        self._of_all = model
        self._usual_chance = model.start()
        self.delay = 0.0
        """How many plain steps the sequence is behind where it would be without any drafts; negative if it is ahead."""
        self.drafted = 0
        """Drafted tokens that were computed."""
        self.accepted = 0
        """Those of them that were accepted."""
        self.reading = 0.0
        """Plain steps that a draft model has spent on reading this sequence."""

    def advance(self, token: int, drafted: int | None) -> None:
        """Learns from a token that was appended; `drafted` is what was drafted in its place.

        The token is also compared with what lookup would have guessed. So the acceptance of lookups is learned from
        every token at no cost, and lookups are only drafted where that is expected to pay.
        """
        self.accepted += token == drafted
        if self._asked and drafted is not None:
            self._model_acceptance.learn(self._asked.popleft(), token == drafted)
        run = self._lookup.run
        hit = self._lookup.advance()
        if hit is not None:
            self._acceptance.learn(run, hit)

    def expected_tokens(self, depth: int) -> float:
        """How many of `depth` tokens of a draft model are expected to be accepted."""
        return sum(self._usual_chance**length for length in range(1, depth + 1))

    def model_guess(self, draft: list[tuple[int, float]]) -> Guess:
        """The guess of a draft model, with chances as such tokens had them before."""
        self._asked = deque(probability for _, probability in draft)
        each = [self._model_acceptance.chance(probability) for probability in self._asked]
        for chance in each:
            self._usual_chance = learned(self._usual_chance, chance)
            self._of_all.learn(chance)
        return Guess([token for token, _ in draft], list(accumulate(each, mul)))

    def lookup_guess(self, limit: int) -> Guess:
        """At most `limit` looked-up tokens, as long as they are likely enough."""
        self._asked.clear()
        run = self._lookup.run
        if not run or limit < 1:
            return Guess()
        each = (self._acceptance.chance(run + index) for index in range(limit))
        chances = list(takewhile(lambda chance: chance >= _LEAST_CHANCE, accumulate(each, mul)))
        return Guess(self._lookup.draft(len(chances)), chances)

    def may_delay(self, steps: float, expected: float, tokens: int) -> bool:
        """Whether a step may take as long as `steps` plain steps, if it is expected to bring `expected` tokens.

        The expected delay must be within what is allowed, and the delay if no drafted token is accepted within what is
        allowed for a trial. `tokens` is how many tokens the answer has so far.
        """
        allowed = _DELAY_SHARE * tokens - self.delay
        trial = _TRIAL_DELAY if expected > 1 else 0.0
        return steps - expected <= allowed and steps - 1 <= allowed + trial

    def add_delay(self, steps: float) -> None:
        """Notes that a draft model took as long as `steps` plain steps."""
        self.delay += steps

    def add_reading(self, steps: float) -> None:
        """Notes that a draft model spent as long as `steps` plain steps on reading the sequence."""
        self.reading += steps

    def record(self, steps: float, tokens: int) -> None:
        """Notes a step with drafts, of any sequence: its time in plain steps, and the tokens that this sequence got."""
        self.delay = max(self.delay + steps - tokens, -_MOST_AHEAD)
