"""The moving average that all estimates of the engine are kept with."""

from __future__ import annotations


def moving_average(old: float, new: float, weight: float) -> float:
    """The average after a new value, which counts for `weight`; older values count less and less."""
    return old + weight * (new - old)
