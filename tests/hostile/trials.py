"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.http_bodies import HTTP_BODIES
from tests.hostile.http_heads import HTTP_HEADS
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [HTTP_BODIES, HTTP_HEADS]
