"""The engine's process: loads the model, and then runs steps while other threads read and prepare commands."""

from __future__ import annotations

import gc
import socket
import sys

from llama_backend.crash_notes import CrashNotes
from llama_backend.engine.llama.log import LlamaLog
from llama_backend.engine.loading import load
from llama_backend.engine.loop import EngineLoop
from llama_backend.engine.messages.channel import Channel
from llama_backend.engine.messages.inbox import Inbox
from llama_backend.errors import BackendError
from llama_backend.wire.ipc import EngineConfig, Failed

_SWITCH_SECONDS = 2e-4
"""How long a thread may hold Python's lock while others wait for it. With the default of 5 ms, the threads that prepare
prompts could delay a step by that much."""


def run(config: EngineConfig, sock: socket.socket, notes: CrashNotes) -> int:
    """Serves one model until the server says stop or goes away; returns the exit code."""
    channel = Channel(sock)
    log = LlamaLog(lambda line: print(line, file=sys.stderr, flush=True))
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        inbox = Inbox()
        loaded = load(config, channel, inbox, log, notes)
    except BackendError as error:
        channel.send(Failed(error.message, error.code))
        return 1
    except BrokenPipeError:
        return 0
    gc.freeze()
    EngineLoop(loaded, channel, inbox).run()
    return 0
