from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from llama_backend.errors import QueueFull
from llama_backend.server.access.admission import Admission


@pytest.mark.parametrize(("max_queue", "slots", "admitted"), [(0, 1, 1), (0, 4, 4), (3, 1, 4), (2, 2, 4)])
def test_as_many_come_in_as_slots_and_queue_hold(max_queue: int, slots: int, admitted: int) -> None:
    admission = Admission(max_queue)
    with ExitStack() as stack:
        for _ in range(admitted):
            stack.enter_context(admission.enter(slots))
        assert admission.inside == admitted
        with pytest.raises(QueueFull) as caught:
            stack.enter_context(admission.enter(slots))
        assert caught.value.retry_after is not None
        assert caught.value.retry_after >= 1
        assert str(max_queue) in str(caught.value)
        assert admission.inside == admitted
    assert admission.inside == 0


def test_a_place_is_given_back_after_an_error() -> None:
    admission = Admission(0)
    with pytest.raises(ZeroDivisionError), admission.enter(1):
        raise ZeroDivisionError
    with admission.enter(1):
        assert admission.inside == 1


def test_the_estimate_follows_how_long_requests_take() -> None:
    admission = Admission(1)
    first = _estimate(admission)
    for _ in range(20):
        with admission.enter(1):
            pass
    assert _estimate(admission) < first


def test_activity_is_noted_at_the_end_and_by_a_touch() -> None:
    admission = Admission(1)
    before = admission.last_activity
    with admission.enter(1):
        pass
    middle = admission.last_activity
    assert middle > before
    admission.touch()
    assert admission.last_activity > middle


def _estimate(admission: Admission) -> float:
    with admission.enter(1), admission.enter(1), pytest.raises(QueueFull) as caught, admission.enter(1):
        pass
    assert caught.value.retry_after is not None
    return caught.value.retry_after


async def test_emptied_waits_for_the_last_one() -> None:
    admission = Admission(5)
    await asyncio.wait_for(admission.emptied(), 1)
    with admission.enter(1):
        waiting = asyncio.ensure_future(admission.emptied())
        with admission.enter(1):
            pass
        await asyncio.sleep(0)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 1)
