"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.kv_states import KV_STATES
from tests.hostile.schedules import SCHEDULES
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [
    KV_STATES,
    SCHEDULES,
]
