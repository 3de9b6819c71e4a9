"""Ends engines that hang, so that waiting requests are answered by the next engine."""

from __future__ import annotations

import asyncio

from llama_backend.server.engines.liveness import hang_reason
from llama_backend.server.engines.pool import ModelPool

_WAIT_FACTOR = 1.5
"""`/livez` fails after `stall` seconds. The engine is ended after this many times as long, if nothing restarts the
server before."""
_LEAST_PAUSE, _MOST_PAUSE = 0.1, 5.0
"""Seconds between two checks."""


async def watch(models: ModelPool, stall: float) -> None:
    """Watches the engines of all models until it is cancelled."""
    while True:
        await asyncio.sleep(min(max(stall / 4, _LEAST_PAUSE), _MOST_PAUSE))
        for model in models.loaded:
            if reason := hang_reason(model.supervisor, stall * _WAIT_FACTOR):
                model.supervisor.end_hung(reason)
