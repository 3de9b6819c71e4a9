"""What the system knows of a process that says nothing."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

_STATE, _FAULTS, _SYSTEM = 0, 9, 12
"""Places in /proc/PID/stat behind the name: the state; from page faults that waited for a disk to processor times."""


class Pulse:
    """When a process was last seen to work, and since when it is stopped; looked at now and then."""

    def __init__(self) -> None:
        self._work: tuple[str, ...] = ()
        self._worked = monotonic()
        self._stopped: float | None = None

    def beat(self) -> None:
        """Notes that it gave a sign of life."""
        self._worked = monotonic()

    def still(self, pid: int | None) -> float:
        """Seconds since it gave a sign of life or was last seen to have used time; 0 without a process."""
        work = tuple(_stat(pid)[_FAULTS : _SYSTEM + 1])
        if work != self._work:
            self._work, self._worked = work, monotonic()
        return monotonic() - self._worked if pid else 0.0

    def stopped(self, pid: int | None) -> float | None:
        """Seconds for which it is known to be stopped, as by SIGSTOP; None where it is not."""
        if not is_stopped(pid):
            self._stopped = None
            return None
        self._stopped = self._stopped or monotonic()
        return monotonic() - self._stopped


def is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped; False where the system does not tell."""
    fields = _stat(pid)
    return bool(fields) and fields[_STATE] in "Tt"


def _stat(pid: int | None) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() if pid else []
    except OSError:
        return []
