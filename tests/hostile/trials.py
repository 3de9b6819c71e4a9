"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.http_heads import HTTP_HEADS
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [HTTP_HEADS]
