"""Ends a process when the process that started it ends, for whatever reason."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Makes the kernel kill this process when the thread that started it ends, even if this process is stopped.

    Only Linux can do that. On other systems this process notices that its socket was closed when it reads from it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
