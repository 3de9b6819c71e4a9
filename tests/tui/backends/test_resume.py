"""After which errors an answer is requested again."""

from __future__ import annotations

from contextlib import suppress

import pytest

from llama_backend.client.stream_position import StreamPosition
from llama_backend.errors import BackendError, ConnectionLost, EngineDied, NotFound, PodPending, Unreachable
from llama_chat.backends.resume import Resume

NOTHING = StreamPosition()
BEGUN = StreamPosition(has_begun=True)
KEPT = StreamPosition(last=7, has_begun=True, grace=60.0)
FAILED = StreamPosition(last=7, has_begun=True, has_failed=True, grace=60.0)


async def retries(position: StreamPosition, error: BackendError, *, was_reached: bool = True) -> bool:
    """Whether another attempt is made."""
    reported: list[BackendError] = []
    with suppress(type(error)):
        await Resume(position).wait(error, was_reached, reported.append)
    return reported == [error]


@pytest.mark.parametrize(
    ("position", "error", "was_reached", "again"),
    [
        (NOTHING, Unreachable("refused"), True, True),
        (NOTHING, Unreachable("refused"), False, False),
        (NOTHING, ConnectionLost("broke"), False, True),
        (NOTHING, PodPending("Pending"), False, True),
        (NOTHING, NotFound("no such path"), True, False),
        (NOTHING, EngineDied("signal 9"), True, False),
        (BEGUN, ConnectionLost("broke"), True, False),
        (KEPT, ConnectionLost("broke"), True, True),
        (KEPT, EngineDied("signal 9"), True, True),
        (FAILED, EngineDied("signal 9"), True, False),
    ],
)
async def test_whether_an_error_is_followed_by_another_attempt(
    position: StreamPosition, error: BackendError, was_reached: bool, again: bool
) -> None:
    assert await retries(position, error, was_reached=was_reached) is again


async def test_an_answer_that_the_backend_no_longer_has_is_lost() -> None:
    with pytest.raises(ConnectionLost, match="no longer has the answer"):
        await Resume(KEPT).wait(NotFound("no such stream"), True, lambda _: None)


async def test_only_the_first_part_after_a_break_ends_it() -> None:
    resume = Resume(KEPT)
    assert not resume.received()
    await resume.wait(ConnectionLost("broke"), True, lambda _: None)
    assert [resume.received(), resume.received()] == [True, False]


async def test_after_the_time_for_which_the_answer_is_kept_the_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("llama_chat.backends.backoff.monotonic", lambda: now)
    resume, error = Resume(StreamPosition(last=1, has_begun=True, grace=0.0)), ConnectionLost("broke")
    await resume.wait(error, True, lambda _: None)
    now += 10.1
    with pytest.raises(ConnectionLost, match="broke"):
        await resume.wait(error, True, lambda _: None)
