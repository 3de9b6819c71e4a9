"""`python -m llama_backend.engine CONFIG SOCKET [NOTES]`: an engine process, as the server starts it.

CONFIG is an EngineConfig as JSON, whose fields are documented in `wire/ipc.py`. SOCKET and NOTES are file descriptors
that this process inherits: the socket to the server, and the memory that CrashNotes writes to.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

import msgspec

from llama_backend.crash_notes import CrashNotes
from llama_backend.host.parent import die_with_parent
from llama_backend.wire.ipc import EngineConfig


def main() -> int:
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A signal to the process group is for the server, which lets running answers finish and then ends the engine.
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    # numpy computes little here, and starting the threads of its BLAS would double the time of its import.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    config = msgspec.json.decode(sys.argv[1], type=EngineConfig)
    from llama_backend.engine.process import run

    notes = CrashNotes(int(sys.argv[3]) if len(sys.argv) > 3 else None)
    notes.watch()
    return run(config, socket.socket(fileno=int(sys.argv[2])), notes)


if __name__ == "__main__":
    sys.exit(main())
