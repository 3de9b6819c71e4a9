"""Prompt lookup: guesses what came next after the same tokens earlier in a sequence's own prompt and answer.

An answer that repeats text (a correction, code with a change, a quotation) can be guessed that way without a second
model: A. Saxena, "Prompt Lookup Decoding", 2023, https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

_SIZE = 3
"""Tokens that must be the same for an earlier place to be found."""
_MOST_PLACES = 32
"""How many places with the same tokens are compared further, the latest ones."""
_LONGEST = 64
"""Tokens up to which a longer match counts for more."""
_NEAR = 8
"""After a run of at least so many tokens has ended, one equal token is enough to continue near its end: at most so many
tokens later, both in the repeated text and in the repetition."""


class PromptLookup:
    """Follows an earlier place in one sequence of tokens with the same tokens before it as at the growing end."""

    def __init__(self, tokens: Tokens[int]) -> None:
        self._tokens = tokens
        self._places: dict[tuple[int, ...], list[int]] = {}
        for end, gram in enumerate(zip(*(tokens[shift:-1] for shift in range(_SIZE)), strict=False), _SIZE):
            self._places.setdefault(gram, []).append(end)
        self.place: int | None = None
        """The index of the tokens that may come next; None where no place was found."""
        self._broken, self._until = 0, 0
        self.run = 0
        """How many tokens at the end are the same as those before the place; 0 without a place."""
        self._find()

    def advance(self) -> bool | None:
        """Takes the one token that was appended; whether it is the same as at the place, or None without a place."""
        end = len(self._tokens) - 1
        if end >= _SIZE:
            self._places.setdefault(tuple(self._tokens[end - _SIZE : end]), []).append(end)
        if self.place is None:
            self._find()
            return None
        if self._tokens[self.place] != self._tokens[-1]:
            self._break_off(self.place)
            return False
        self.place += 1
        self.run += 1
        return True

    def draft(self, limit: int) -> list[int]:
        """At most `limit` tokens that may come next; where these reach the end of the sequence, they are repeated."""
        if self.place is None:
            return []
        found = list(self._tokens[self.place : self.place + limit])
        period = len(self._tokens) - self.place
        for index in range(len(found), limit):
            found.append(found[index - period])
        return found

    def _break_off(self, place: int) -> None:
        if self.run >= _NEAR:
            self._broken, self._until = place, len(self._tokens) + _NEAR
        self._find()

    def _find(self) -> None:
        """Finds the earlier place with the longest match, the latest one among equals."""
        self.place, self.run = None, 0
        for place in self._places.get(tuple(self._tokens[-_SIZE:]), [])[-_MOST_PLACES:]:
            match = self._match(place, _SIZE)
            if match >= self.run:
                self.place, self.run = place, match
        if self.place is None and len(self._tokens) < self._until:
            self._find_near()

    def _find_near(self) -> None:
        """Finds the first place after the one where the last run ended that has the same token before it."""
        for place in range(self._broken + 1, min(self._broken + _NEAR, len(self._tokens))):
            if self._tokens[place - 1] == self._tokens[-1]:
                self.place, self.run = place, self._match(place, 1)
                return

    def _match(self, place: int, length: int) -> int:
        """How many tokens before a place are the same as those at the end, of which `length` are known to be."""
        tokens, end = self._tokens, len(self._tokens)
        while length < _LONGEST and length < place and tokens[place - length - 1] == tokens[end - length - 1]:
            length += 1
        return length
