"""Prompt lookup: what came after the same tokens before, in a sequence's own prompt and answer.

An answer that repeats text (a correction, code with a change, a quotation) can be guessed that way without a second
model: A. Saxena, "Prompt Lookup Decoding", 2023, https://github.com/apoorvumang/prompt-lookup-decoding
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

_SIZE = 3
"""Tokens that must be the same before a place counts."""
_MOST_PLACES = 32
"""Of the places with the same tokens only the latest are compared further."""
_LONGEST = 64
"""Tokens up to which a longer match counts for more."""


class PromptLookup:
    """Follows one sequence of tokens, which grows at its end, and knows how an earlier place in it went on."""

    def __init__(self, tokens: Tokens[int]) -> None:
        self._tokens = tokens
        self._places: dict[tuple[int, ...], list[int]] = {}
        for end, gram in enumerate(zip(*(tokens[shift:-1] for shift in range(_SIZE)), strict=False), _SIZE):
            self._places.setdefault(gram, []).append(end)
        self._next: int | None = None
        self.run = 0
        """How many tokens at the end are the same as those before the place that is followed; 0 without one."""
        self._find()

    def advance(self) -> bool | None:
        """Takes in the one token that was appended since; whether it was what the place had, None without one."""
        last = self._tokens[-1]
        hit = None if self._next is None else self._tokens[self._next] == last
        if hit and self._next is not None:
            self._next += 1
            self.run += 1
        end = len(self._tokens) - 1
        if end >= _SIZE:
            self._places.setdefault(tuple(self._tokens[end - _SIZE : end]), []).append(end)
        if not hit:
            self._find()
        return hit

    def draft(self, limit: int) -> list[int]:
        """At most `limit` tokens that may come next; where the place is at the end, it goes on with the draft."""
        if self._next is None:
            return []
        found = list(self._tokens[self._next : self._next + limit])
        period = len(self._tokens) - self._next
        for index in range(len(found), limit):
            found.append(found[index - period])
        return found

    def _find(self) -> None:
        """Goes to the earlier place with the longest match to the end, the latest of equal ones."""
        self._next, self.run = None, 0
        for place in self._places.get(tuple(self._tokens[-_SIZE:]), [])[-_MOST_PLACES:]:
            match = self._match(place)
            if match >= self.run:
                self._next, self.run = place, match

    def _match(self, place: int) -> int:
        """How many tokens before a place are the same as those at the end."""
        tokens, end, length = self._tokens, len(self._tokens), _SIZE
        while length < _LONGEST and length < place and tokens[place - length - 1] == tokens[end - length - 1]:
            length += 1
        return length
