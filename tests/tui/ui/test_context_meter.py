from __future__ import annotations

import asyncio

import pytest

from llama_backend.errors import Unavailable
from llama_backend.wire.api import ChatMessage
from llama_chat.ui.context_meter import ContextMeter, Reading
from tests.support.ui.scripted_backend import ScriptedBackend
from tests.support.wait import until_async


@pytest.fixture(autouse=True)
def short_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_chat.ui.context_meter.DEBOUNCE_SECONDS", 0.02)


def words(number: int) -> list[ChatMessage]:
    return [ChatMessage("user", "word " * number)]


class Meter:
    """A meter and its readings."""

    def __init__(self, context: int = 10) -> None:
        self.backend = ScriptedBackend(context=context)
        self.readings: list[Reading] = []
        self.meter = ContextMeter(self.backend, self.readings.append)

    async def counted(self) -> Reading:
        await until_async(lambda: self.meter.reading.is_exact)
        return self.meter.reading


async def test_counts_what_there_is() -> None:
    test = Meter()
    test.meter.measure(words(4))
    assert not test.meter.reading.is_exact
    assert await test.counted() == Reading(4, 10, is_exact=True)


async def test_only_the_last_of_quick_changes_is_counted() -> None:
    test = Meter()
    for number in range(1, 6):
        test.meter.measure(words(number))
    assert (await test.counted()).count == 5
    assert len(test.backend.counted) == 1


async def test_an_older_count_is_never_shown_as_exact() -> None:
    test = Meter()
    test.meter.measure(words(4))
    await test.counted()
    test.meter.measure(words(5))
    assert test.meter.reading == Reading(4, 10, is_exact=False)
    assert [reading.is_exact for reading in test.readings] == [True, False]


async def test_nothing_is_nothing_without_asking() -> None:
    test = Meter()
    test.meter.set_context(10)
    test.meter.measure([])
    assert test.meter.reading == Reading(0, 10, is_exact=True)
    assert test.backend.counted == []


async def test_an_answer_adds_a_guess_until_it_is_counted() -> None:
    test = Meter()
    test.meter.measure(words(4))
    await test.counted()
    test.meter.estimate_answer(3)
    assert test.meter.reading == Reading(7, 10, is_exact=False)
    test.meter.measure(words(7))
    assert await test.counted() == Reading(7, 10, is_exact=True)


async def test_a_count_that_comes_while_the_answer_grows_is_no_exact_one() -> None:
    test = Meter()
    test.meter.measure(words(4))
    test.meter.estimate_answer(2)
    await asyncio.sleep(0.1)
    assert test.meter.reading == Reading(6, 10, is_exact=False)


@pytest.mark.parametrize(("number", "fits"), [(9, True), (10, False), (11, False)])
async def test_one_token_is_left_for_the_answer(number: int, fits: bool) -> None:
    test = Meter()
    test.meter.measure(words(number))
    assert (await test.counted()).fits is fits


async def test_what_is_not_counted_may_fit() -> None:
    assert Reading(99, 10, is_exact=False).fits
    assert Reading().fits


async def test_a_backend_that_cannot_count_leaves_the_old_reading() -> None:
    test = Meter()
    test.backend.count_error = Unavailable("restarting")
    test.meter.measure(words(4))
    await asyncio.sleep(0.05)
    assert test.meter.reading == Reading()


async def test_cancelling_counts_nothing() -> None:
    test = Meter()
    test.meter.measure(words(4))
    test.meter.cancel()
    await asyncio.sleep(0.05)
    assert test.backend.counted == []
