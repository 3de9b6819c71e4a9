"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.schedules import SCHEDULES
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [
    SCHEDULES,
]
