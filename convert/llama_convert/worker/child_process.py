"""Starts a worker, follows its events, and ends it where anything goes wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from typing import IO, Any

from llama_convert import errors
from llama_convert.errors import ConvertError, WorkerFailed
from llama_convert.progress import Progress

_LAST = 4000
"""Bytes at the end of what the child wrote to stderr."""
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|_KEY|^(LLAMA_CHAT|HF|HUGGING)", re.IGNORECASE)
"""Names of variables that llama.cpp, which reads weights of strangers, has no need of."""


def run_worker(stage: str, progress: Progress, request: dict[str, Any]) -> dict[str, Any]:
    """Run one task in a child process and return its result; `stage` is shown with its progress.

    Whatever ends this function early, Ctrl+C included, ends the child first.

    Raises WorkerFailed where the child refused or died; the message has its reason, and ConvertError where another
    error of ours that the child reports.
    """
    try:
        return _run(stage, progress, request)
    except OSError as error:
        raise WorkerFailed(f"{stage}: no process for llama.cpp ({error.strerror or error})") from error


def _run(stage: str, progress: Progress, request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile("w+b") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "llama_convert.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not _SECRET.search(name)},
        )
        try:
            return _follow(child, stage, progress, request, log)
        finally:
            child.kill()
            child.wait()
            for stream in (child.stdin, child.stdout):
                with suppress(BrokenPipeError):
                    if stream:
                        stream.close()


def _follow(
    child: subprocess.Popen[str], stage: str, progress: Progress, request: dict[str, Any], log: IO[bytes]
) -> dict[str, Any]:
    assert child.stdin is not None
    assert child.stdout is not None
    with suppress(BrokenPipeError):  # It is dead already, and what it wrote says why.
        child.stdin.write(json.dumps(request) + "\n")
        child.stdin.flush()
    started = False
    for line in child.stdout:
        event = json.loads(line)
        match event["event"]:
            case "progress":
                if not started:
                    progress.start(stage, event["total"])
                    started = True
                progress.advance(event["done"])
            case "warning":
                progress.warn(event["text"])
            case "error":
                raise _error(event)
            case "result":
                if started:
                    progress.finish()
                return dict(event["value"])
    raise WorkerFailed(f"{stage}: {_death(child.wait())}{_last_words(log)}")


def _error(event: dict[str, Any]) -> ConvertError:
    kind = getattr(errors, event["kind"], None)
    known = isinstance(kind, type) and issubclass(kind, ConvertError)
    return kind(event["text"]) if kind and known else WorkerFailed(event["text"])


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
