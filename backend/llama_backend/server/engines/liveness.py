"""Whether engines hang or have failed for good, so that the server must be restarted or an engine ended."""

from __future__ import annotations

from time import monotonic

from llama_backend.server.engines.engine_status import EngineStatus
from llama_backend.server.engines.request_table import RequestTable
from llama_backend.server.engines.supervisor import Supervisor
from llama_backend.server.engines.watched_process import WatchedProcess


def liveness_problem(supervisor: Supervisor, stall: float) -> str | None:
    """A problem that only a restart of the server can solve, or None.

    An engine that dies is not one, since the supervisor starts another, nor is slow loading. Three problems remain: the
    engine failed after it had been ready, it computes without the GPU that it had before, or it hangs.
    """
    status = supervisor.status
    if status.was_ready and status.state == "failed":
        return f"the engine is lost: {status.reason}"
    if status.ready is not None and status.had_gpu and status.ready.gpu_layers == 0:
        return "the GPU is lost: the model computes without it"
    return hang_reason(supervisor, stall)


def hang_reason(supervisor: Supervisor, stall: float) -> str | None:
    """In what way the engine has hung for more than `stall` seconds, or None."""
    status = supervisor.status
    if status.process is not None and (seconds := status.process.stopped_seconds()) > stall:
        return f"the engine has been stopped for {seconds:.0f} s"
    if status.state == "ready":
        return _compute_hang(status, supervisor.requests, stall)
    return _load_hang(status.process, stall)


def can_answer(supervisor: Supervisor, stall: float) -> bool:
    """Whether a request that arrives now is likely to be answered."""
    process = supervisor.status.process
    is_stopped = process is not None and process.is_stopped()
    return not is_stopped and liveness_problem(supervisor, stall) is None


def _load_hang(process: WatchedProcess | None, stall: float) -> str | None:
    seconds = process.idle_seconds() if process is not None else 0.0
    return f"the engine has not gone on loading for {seconds:.0f} s" if seconds > stall else None


def _compute_hang(status: EngineStatus, requests: RequestTable, stall: float) -> str | None:
    silence = requests.step_silence()
    if status.running:
        silence = max(silence, monotonic() - status.last_step)
    if silence > stall:
        return f"the engine has not ended a step for {silence:.0f} s"
    silence = requests.reading_silence()
    return f"the engine has not read a request for {silence:.0f} s" if silence > stall else None
