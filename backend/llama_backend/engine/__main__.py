"""`python -m llama_backend.engine CONFIG FD`: started by the server, with a JSON EngineConfig and a socket."""

from __future__ import annotations

import os
import signal
import socket
import sys

import msgspec

from llama_backend.ipc import EngineConfig


def main() -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        # Whoever ends a whole process group means the server, which lets running answers finish first.
        signal.signal(number, signal.SIG_IGN)
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")
    config = msgspec.json.decode(sys.argv[1], type=EngineConfig)
    from llama_backend.engine.process import run

    return run(config, socket.socket(fileno=int(sys.argv[2])))


if __name__ == "__main__":
    sys.exit(main())
