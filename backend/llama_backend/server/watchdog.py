"""Ends engines that hang, so that those who wait for them are answered by another."""

from __future__ import annotations

import asyncio

from llama_backend.server.engines.liveness import hang
from llama_backend.server.engines.pool import ModelPool

_PATIENCE = 1.5
"""How many times longer than until `/livez` says so: whoever watches that is first to act."""
_MOST_OFTEN, _LEAST_OFTEN = 0.1, 5.0


async def watch(models: ModelPool, stall: float) -> None:
    """Looks after the engines of all models until it is cancelled."""
    while True:
        await asyncio.sleep(min(max(stall / 4, _MOST_OFTEN), _LEAST_OFTEN))
        for model in models.loaded:
            if reason := hang(model.supervisor, stall * _PATIENCE):
                model.supervisor.end_hung(reason)
