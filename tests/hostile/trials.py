"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.histories import HISTORIES
from tests.hostile.server_answers import SERVER_ANSWERS
from tests.hostile.terminal_text import TERMINAL_TEXT
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [
    HISTORIES,
    SERVER_ANSWERS,
    TERMINAL_TEXT,
]
