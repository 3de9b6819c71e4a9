from __future__ import annotations

import pytest

from llama_backend.wire.api import Delta, Timings
from llama_chat.ui.streaming.token_rate import TokenRate


def test_counts_pieces_between_the_first_and_the_last() -> None:
    rate = TokenRate()
    for number in range(11):
        rate.take(Delta(text="x"), now=5 + number / 50)
    assert rate.per_second == pytest.approx(50)
    assert rate.pieces == 11


def test_a_few_pieces_say_nothing() -> None:
    rate = TokenRate()
    for number in range(3):
        rate.take(Delta(text="x"), now=number)
    assert rate.per_second is None


def test_what_the_backend_measured_wins() -> None:
    rate = TokenRate()
    rate.take(Delta(text="x"), now=0)
    rate.take(Delta(finish_reason="stop", timings=Timings(predicted_per_second=83.5)), now=9)
    assert rate.per_second == 83.5
