"""Whether a server can still be of use, or is better started anew."""

from __future__ import annotations

from time import monotonic

from llama_backend.server.supervisor import Supervisor


def trouble(supervisor: Supervisor, stall: float) -> str | None:
    """What only a new process could mend, or None.

    An engine that dies is started again by the supervisor, and one that loads takes what it takes. What remains: it
    was there and cannot be had any more, it computes without a GPU that it had, or its step lasts over `stall` seconds.
    """
    if supervisor.was_ready and supervisor.state == "failed":
        return f"the engine is lost: {supervisor.reason}"
    if supervisor.ready is not None and supervisor.had_gpu and supervisor.ready.gpu_layers == 0:
        return "the GPU is lost: the model computes without it"
    silence = monotonic() - supervisor.last_step
    if supervisor.state == "ready" and supervisor.running and silence > stall:
        return f"the engine has not ended a step for {silence:.0f} s"
    return None
