"""What the worker makes of the probabilities that a model computes."""

from __future__ import annotations

import numpy as np
import pytest

from llama_convert.errors import CheckFailed
from llama_convert.worker.evaluate import Measured


def test_the_perplexity_is_that_of_the_mean_loss() -> None:
    measured = Measured()
    measured.add_loss(np.log(np.array([[0.5, 0.5], [0.25, 0.75]])), [0, 0])
    assert measured.summary().perplexity == pytest.approx(8**0.5)


def test_a_perplexity_beyond_numbers_is_an_error_with_its_size() -> None:
    measured = Measured()
    measured.add_loss(np.array([[0.0, -1000.0]]), [1])
    with pytest.raises(CheckFailed, match=r"e\^1000"):
        measured.summary()
