"""How far drafts may delay a sequence, and what is known of their tokens."""

from __future__ import annotations

import pytest

from llama_backend.engine.speculation.acceptance import Acceptance, ModelAcceptance
from llama_backend.engine.speculation.draft_history import DraftHistory


def history_of(tokens: list[int]) -> DraftHistory:
    return DraftHistory(tokens, Acceptance.by_run(), ModelAcceptance())


@pytest.mark.parametrize(
    ("steps", "expected", "tokens", "allowed"),
    [
        (1.0, 1.0, 0, True),
        (1.2, 1.5, 0, True),
        (1.2, 1.1, 0, False),
        (1.5, 1.0, 0, False),
        (1.5, 1.0, 50, True),
        (2.9, 5.0, 0, True),
        (3.1, 5.0, 0, False),
    ],
)
def test_a_step_may_take_as_long_as_it_is_expected_to_win_back(
    steps: float, expected: float, tokens: int, allowed: bool
) -> None:
    """One in fifty steps may be lost, and two more on a draft that promises something."""
    assert history_of([1]).may_delay(steps, expected, tokens) is allowed


def test_who_is_behind_is_delayed_no_further_until_that_is_won_back() -> None:
    history = history_of([1])
    history.add_delay(1.0)
    history.record(2.0, 1)
    assert history.delay == 2.0
    assert not history.may_delay(1.2, 1.5, 0)
    history.record(2.0, 4)
    assert history.may_delay(1.2, 1.5, 0)


def test_being_far_ahead_counts_only_up_to_a_limit() -> None:
    history = history_of([1])
    for _ in range(10):
        history.record(1.0, 20)
    assert history.may_delay(8.9, 1.0, 0)
    assert not history.may_delay(9.1, 1.0, 0)


def test_a_model_that_is_always_right_is_expected_to_be_right_the_next_time() -> None:
    tokens = [1]
    history = history_of(tokens)
    before = history.expected_tokens(4)
    for token in range(2, 60):
        history.model_guess([(token, 0.97)])
        tokens.append(token)
        history.advance(token, token)
    assert history.expected_tokens(4) > before
    assert history.accepted == 58
