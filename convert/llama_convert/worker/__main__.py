"""`python -m llama_convert.worker`: reads one task as a JSON line from stdin, and writes events to stdout.

The process ends when its parent does: the parent keeps stdin open for as long as it lives.
"""

from __future__ import annotations

import os
import sys
import threading

from llama_convert.errors import ConvertError
from llama_convert.worker.channel import Channel
from llama_convert.worker.decode_check import run_check
from llama_convert.worker.evaluate import run_evaluate
from llama_convert.worker.messages import CheckTask, EvaluateTask, Failed, QuantizeTask, Result, Task, decode_task
from llama_convert.worker.quantize import run_quantize, run_size


def main() -> None:
    """Runs the task and reports its result, or why it failed."""
    channel = _open_channel()
    try:
        task = decode_task(sys.stdin.buffer.readline())
        threading.Thread(target=_end_with_parent, daemon=True).start()
        channel.send(_run(task, channel))
    except ConvertError as error:
        channel.send(Failed(type(error).__name__, str(error)))
    except Exception as error:  # noqa: BLE001 - the edge of the process; the parent reports it
        channel.send(Failed("WorkerFailed", f"{type(error).__name__}: {error}"))


def _run(task: Task, channel: Channel) -> Result:
    match task:
        case QuantizeTask():
            return run_quantize(task, channel)
        case CheckTask():
            return run_check(task)
        case EvaluateTask():
            return run_evaluate(task, channel)
        case _:
            return run_size(task, channel)


def _open_channel() -> Channel:
    """The channel on stdout. Whatever C++ prints there goes to stderr from now on."""
    events = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return Channel(os.fdopen(events, "wb"))


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


main()
