"""The moving average that the estimates of the engine use."""

from __future__ import annotations


def moving_average(old: float, new: float, weight: float) -> float:
    """The average after a new value with a weight from 0 to 1; the weights of older values shrink with each new one."""
    return old + weight * (new - old)
