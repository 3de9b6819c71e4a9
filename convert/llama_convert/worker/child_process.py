"""The parent's side of a worker: starts it, follows its events, and ends it where anything goes wrong."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import IO, TypeVar

from llama_convert import errors
from llama_convert.errors import ConvertError, WorkerFailed
from llama_convert.progress import Progress
from llama_convert.worker.messages import Event, Failed, Progressed, Result, Task, decode_event, encode_line

_LAST = 4000
"""Bytes at the end of the child's stderr that may be shown."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY|^(LLAMA_CHAT|HF|HUGGING)", re.IGNORECASE)
"""Names of variables that llama.cpp, which reads untrusted weights, does not need."""

R = TypeVar("R", bound=Result)


def run_worker(stage: str, progress: Progress, task: Task, result: type[R]) -> R:
    """Runs one task in a child process and returns its result, which is a `result`; `stage` names its progress.

    If this function ends early, as by Ctrl+C, the child is ended first.

    Raises WorkerFailed where the child cannot be started, refuses or dies (the message has its reason), and any other
    ConvertError that the child reports.
    """
    try:
        found = _run(stage, progress, task)
    except OSError as error:
        raise WorkerFailed(
            f"{stage}: the process for llama.cpp cannot be started ({error.strerror or error})"
        ) from error
    if not isinstance(found, result):
        raise WorkerFailed(f"{stage}: llama.cpp's process sent the result of another task")
    return found


def _run(stage: str, progress: Progress, task: Task) -> Result:
    with tempfile.TemporaryFile("w+b") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "llama_convert.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not _SECRET.search(name)},
        )
        try:
            return _follow(child, stage, progress, task, log)
        finally:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                with suppress(BrokenPipeError):
                    if stream:
                        stream.close()


def _follow(child: subprocess.Popen[bytes], stage: str, progress: Progress, task: Task, log: IO[bytes]) -> Result:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):  # The child is dead already; what it wrote to stderr says why.
        child.stdin.write(encode_line(task))
        child.stdin.flush()
    started = False
    for line in child.stdout:
        match _decoded(stage, line):
            case Progressed(done, total):
                if not started:
                    progress.start(stage, total)
                    started = True
                progress.advance(done)
            case Failed(kind, text):
                raise _error(kind, text)
            case found:
                if started:
                    progress.finish()
                return found
    raise WorkerFailed(f"{stage}: {_death(child.wait())}{_last_words(log)}")


def _decoded(stage: str, line: bytes) -> Event:
    try:
        return decode_event(line)
    except ValueError as error:
        raise WorkerFailed(f"{stage}: llama.cpp's process sent something unreadable ({error})") from error


def _error(name: str, text: str) -> ConvertError:
    """The error that the child reports, by the name of its class."""
    kind = getattr(errors, name, None)
    known = isinstance(kind, type) and issubclass(kind, ConvertError)
    return kind(text) if kind and known else WorkerFailed(text)


def _death(code: int) -> str:
    if code >= 0:
        return f"llama.cpp's process ended with code {code}"
    if code == -signal.SIGXCPU:
        return "llama.cpp was ended: it took far more processor time than a model of this size needs"
    return f"llama.cpp's process was killed by {signal.Signals(-code).name}"


def _last_words(log: IO[bytes]) -> str:
    """The last lines that the child wrote to stderr."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - _LAST))
    lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return f" ({' | '.join(lines[-3:])})" if lines else ""
