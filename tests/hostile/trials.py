"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.terminal_text import TERMINAL_TEXT
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [
    TERMINAL_TEXT,
]
