"""When what steps brought is sent."""

from __future__ import annotations

import pytest

from llama_backend.engine.messages.outbox import Outbox
from llama_backend.wire.ipc import StepDone

STEPS = [StepDone(outputs=[], running=number, waiting=0) for number in range(4)]


def test_without_a_gpu_everything_is_sent_at_once() -> None:
    sent: list[StepDone] = []
    outbox = Outbox(sent.append, overlaps=False)
    for number, step in enumerate(STEPS):
        outbox.put(step, is_last=False)
        assert sent == STEPS[: number + 1]


@pytest.mark.parametrize("flushes", [True, False])
def test_with_one_a_step_is_sent_while_the_next_is_computed(flushes: bool) -> None:
    """Or at its end, where nothing was computed."""
    sent: list[StepDone] = []
    outbox = Outbox(sent.append, overlaps=True)
    for number, step in enumerate(STEPS[:3]):
        if flushes:
            outbox.flush()
            assert sent == STEPS[:number]
        outbox.put(step, is_last=False)
        assert sent == STEPS[:number]
    outbox.put(STEPS[3], is_last=True)
    assert sent == STEPS
    outbox.flush()
    assert sent == STEPS
