"""Those who wait for an engine learn of each change of its state."""

from __future__ import annotations

import asyncio

import pytest

from llama_backend.errors import ModelUnreadable, Unavailable
from llama_backend.server.engines.counter_sums import CounterSums
from llama_backend.server.engines.engine_status import EngineStatus
from llama_backend.wire.ipc import Failed


async def test_a_change_just_before_the_wait_begins_is_not_missed() -> None:
    status = EngineStatus(CounterSums())
    waiter = asyncio.create_task(status.wait_ready(30))
    await asyncio.sleep(0)
    status.fail(Failed("no memory", ModelUnreadable.code))
    async with asyncio.timeout(5):
        with pytest.raises(ModelUnreadable, match="no memory"):
            await waiter


async def test_who_waits_is_told_of_the_state_when_the_time_is_over() -> None:
    status = EngineStatus(CounterSums())
    with pytest.raises(Unavailable, match="the model is loading"):
        await status.wait_ready(0.01)
