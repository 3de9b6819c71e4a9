"""All trials, one module each."""

from __future__ import annotations

from tests.hostile.frames import FRAMES
from tests.hostile.grammars import GRAMMARS
from tests.hostile.templates import TEMPLATES
from tests.hostile.trial import Trial

TRIALS: list[Trial] = [FRAMES, GRAMMARS, TEMPLATES]
