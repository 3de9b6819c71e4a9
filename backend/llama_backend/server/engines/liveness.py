"""Whether a server can still be of use, or is better started anew."""

from __future__ import annotations

from time import monotonic

from llama_backend.server.engines.heartbeat import is_stopped
from llama_backend.server.engines.supervisor import Supervisor


def trouble(supervisor: Supervisor, stall: float) -> str | None:
    """What only a new process could mend, or None.

    An engine that dies is started again by the supervisor, and one that loads takes what it takes. What remains: it
    was there and cannot be had any more, it computes without a GPU that it had, or it hangs.
    """
    if supervisor.was_ready and supervisor.state == "failed":
        return f"the engine is lost: {supervisor.reason}"
    if supervisor.ready is not None and supervisor.had_gpu and supervisor.ready.gpu_layers == 0:
        return "the GPU is lost: the model computes without it"
    return hang(supervisor, stall)


def hang(supervisor: Supervisor, stall: float) -> str | None:
    """What an engine has owed for over `stall` seconds, or None."""
    stopped = supervisor.pulse.stopped(supervisor.pid)
    if stopped is not None and stopped > stall:
        return f"the engine has been stopped for {stopped:.0f} s"
    if supervisor.state != "ready":
        still = supervisor.pulse.still(supervisor.pid)
        return f"the engine has not gone on loading for {still:.0f} s" if still > stall else None
    silence = supervisor.ledger.step_silence()
    if supervisor.running:
        silence = max(silence, monotonic() - supervisor.last_step)
    if silence > stall:
        return f"the engine has not ended a step for {silence:.0f} s"
    silence = supervisor.ledger.reading_silence()
    return f"the engine has not read a request for {silence:.0f} s" if silence > stall else None


def can_answer(supervisor: Supervisor, stall: float) -> bool:
    """Whether a request that comes now is likely to be answered."""
    return not is_stopped(supervisor.pid) and trouble(supervisor, stall) is None
