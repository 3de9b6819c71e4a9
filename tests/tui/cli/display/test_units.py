"""Numbers as a person reads them."""

from __future__ import annotations

import pytest

from llama_chat.cli.display.units import duration_text, size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1500, "1.5 kB"),
        (92_100_000, "92.1 MB"),
        (999_960, "1 MB"),
        (3_800_000_000, "3.8 GB"),
        (140_000_000_000, "140.0 GB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.7, "60 s"), (60, "1 min"), (3599, "59 min"), (7800, "2 h 10 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
