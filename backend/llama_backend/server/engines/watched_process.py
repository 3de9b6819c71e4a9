"""What the operating system reports about a process: whether it works or is stopped, and how much memory it takes."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

_STATE, _FAULTS, _SYSTEM = 0, 9, 12
"""Fields of /proc/PID/stat after the name: the state; the range from major page faults to processor times."""


class WatchedProcess:
    """A process whose use of processor time is checked now and then, since a process that hangs reports nothing."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._usage: tuple[str, ...] = ()
        self._last_active = monotonic()
        self._stopped_at: float | None = None

    def note_activity(self) -> None:
        """Notes that the process itself has reported something."""
        self._last_active = monotonic()

    def idle_seconds(self) -> float:
        """Seconds since its last report, or since it was last seen to have used processor or disk time."""
        usage = tuple(_stat(self.pid)[_FAULTS : _SYSTEM + 1])
        if usage != self._usage:
            self._usage, self._last_active = usage, monotonic()
        return monotonic() - self._last_active

    def stopped_seconds(self) -> float:
        """Seconds since it was first seen to be stopped, as by SIGSTOP; 0 while it is not stopped."""
        if not self.is_stopped():
            self._stopped_at = None
            return 0.0
        self._stopped_at = self._stopped_at or monotonic()
        return monotonic() - self._stopped_at

    def is_stopped(self) -> bool:
        """Whether it is stopped now; False where the system does not say."""
        fields = _stat(self.pid)
        return bool(fields) and fields[_STATE] in "Tt"


def resident_bytes(pid: int) -> int:
    """Resident memory of a process, or 0 where that is not known."""
    try:
        pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
