"""What came after the same tokens before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_backend.engine.speculation.lookup import PromptLookup

few_tokens = st.lists(st.integers(1, 3), min_size=1, max_size=60)


def grown(prompt: list[int], rest: list[int]) -> tuple[PromptLookup, list[int]]:
    """A lookup that saw `rest` come token by token, and all tokens."""
    tokens = list(prompt)
    lookup = PromptLookup(tokens)
    for token in rest:
        tokens.append(token)
        lookup.advance()
    return lookup, tokens


def test_what_came_before_is_guessed_again() -> None:
    lookup, _ = grown([1, 2, 3, 4, 5, 6], [9, 1, 2, 3])
    assert lookup.draft(2) == [4, 5]
    assert lookup.run == 3


def test_two_tokens_are_no_match() -> None:
    lookup, _ = grown([1, 2, 3, 4, 5, 6], [9, 1, 2])
    assert (lookup.draft(3), lookup.run) == ([], 0)


def test_the_longest_match_counts_and_not_the_latest() -> None:
    lookup, _ = grown([7, 1, 2, 3, 4, 8, 1, 2, 3, 5], [7, 1, 2, 3])
    assert lookup.draft(1) == [4]
    assert lookup.run == 4


def test_of_equal_matches_the_latest_counts() -> None:
    lookup, _ = grown([7, 1, 2, 3, 4, 8, 1, 2, 3, 5], [9, 1, 2, 3])
    assert lookup.draft(1) == [5]


def test_a_loop_goes_on_with_itself() -> None:
    lookup, _ = grown([1, 2, 3, 4, 1, 2, 3], [])
    assert lookup.draft(9) == [4, 1, 2, 3, 4, 1, 2, 3, 4]


def test_a_place_is_followed_until_it_is_wrong() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    lookup = PromptLookup(tokens)
    told = []
    for token in (4, 5, 9, 9):
        tokens.append(token)
        told.append((lookup.advance(), lookup.run))
    assert told == [(True, 4), (True, 5), (False, 0), (None, 0)]


TEXT = list(range(10, 40))


@pytest.mark.parametrize(
    ("written", "expected"),
    [([99, 20], 21), ([99, 98, 21], 22), ([22], 23), ([99, 23, 24], 25)],
    ids=["one put in", "two for one", "two left out", "three changed"],
)
def test_behind_a_change_one_token_is_enough_to_go_on(written: list[int], expected: int) -> None:
    lookup, _ = grown(TEXT, [*TEXT[:10], *written])
    assert lookup.draft(2) == [expected, expected + 1]


def test_far_behind_a_change_or_a_short_run_it_is_not() -> None:
    assert grown(TEXT, [*TEXT[:10], *[99] * 8, 20])[0].run == 0
    assert grown(TEXT, [*TEXT[:10], 30])[0].run == 0
    assert grown(TEXT, [*TEXT[:5], 99, 15])[0].run == 0


@given(few_tokens, few_tokens)
def test_the_run_is_what_stands_before_the_place(prompt: list[int], rest: list[int]) -> None:
    lookup, tokens = grown(prompt, rest)
    run, place = lookup.run, lookup.place
    assert (place is None) == (run == 0)
    if place is not None:
        assert run >= 1
        assert tokens[place - run : place] == tokens[len(tokens) - run :]


@given(few_tokens, few_tokens)
def test_three_tokens_that_came_before_are_always_found(prompt: list[int], rest: list[int]) -> None:
    lookup, tokens = grown(prompt, rest)
    places = [end for end in range(3, len(tokens)) if tokens[end - 3 : end] == tokens[-3:]]
    assert not places or lookup.run


@given(few_tokens, few_tokens, st.integers(0, 40))
def test_a_draft_is_what_would_be_guessed_token_by_token(prompt: list[int], rest: list[int], limit: int) -> None:
    lookup, tokens = grown(prompt, rest)
    draft = lookup.draft(limit)
    assert len(draft) == (limit if lookup.run else 0)
    for token in draft:
        assert lookup.draft(1) == [token]
        tokens.append(token)
        assert lookup.advance()
