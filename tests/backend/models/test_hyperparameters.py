"""Numbers of a model's architecture: one for all layers, or one for each."""

from __future__ import annotations

import pytest

from llama_backend.models.hyperparameters import Hyperparameters


def of(**values: object) -> Hyperparameters:
    return Hyperparameters({"block_count": 3, **values}.get)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(8, 8), (None, 5), ("8", 5), (8.5, 5), (float("nan"), 5), ((8, 8, 8), 5)],
)
def test_one_number(value: object, expected: int) -> None:
    assert of(heads=value).number("heads", 5) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(8, (8, 8, 8)), ((8, 4, 0), (8, 4, 0)), (None, (5, 5, 5)), ((8, 4), (5, 5, 5)), ("8", (5, 5, 5))],
)
def test_a_number_for_each_layer(value: object, expected: tuple[int, ...]) -> None:
    assert of(heads=value).by_layer("heads", 5) == expected
