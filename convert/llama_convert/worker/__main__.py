"""`python -m llama_convert.worker`: one task, described by a JSON line on stdin; events go to stdout.

The process ends when its parent does: the parent keeps stdin open for as long as it lives.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from llama_convert.errors import ConvertError
from llama_convert.worker.channel import Channel
from llama_convert.worker.check import run_check
from llama_convert.worker.evaluate import run_evaluate
from llama_convert.worker.quantize import run_quantize, run_size

_TASKS: dict[str, Callable[[dict[str, Any], Channel], dict[str, Any]]] = {
    "quantize": run_quantize,
    "size": run_size,
    "check": run_check,
    "evaluate": run_evaluate,
}


def main() -> None:
    """Run the task and say how it ended."""
    channel = _open_channel()
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        channel.result(_TASKS[request["task"]](request, channel))
    except ConvertError as error:
        channel.error(type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - the edge of the process; the parent reports it
        channel.error("WorkerFailed", f"{type(error).__name__}: {error}")


def _open_channel() -> Channel:
    """Take stdout for the events, and send whatever C++ prints there to stderr."""
    events = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Channel(os.fdopen(events, "w", encoding="utf-8"))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


main()
