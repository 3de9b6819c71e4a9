"""A worker that dies, or that sends something else than messages, is an error with a reason."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from llama_convert.errors import ConvertError, UsageError, WorkerFailed
from llama_convert.progress import Silent
from llama_convert.worker.child_process import run_worker
from llama_convert.worker.messages import (
    Checked,
    CheckTask,
    Failed,
    QuantizeTask,
    decode_event,
    decode_task,
    encode_line,
)
from tests.support.convert.recorder import Recorder

TASK = CheckTask("model.gguf", threads=1)


def fake_worker(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Has this script run in place of the worker."""
    (folder / "script.py").write_text(script)
    (folder / "python").write_text(f"#!/bin/sh\nexec {sys.executable} {folder / 'script.py'}\n")
    (folder / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))


def saying(line: bytes) -> str:
    return f"import sys; sys.stdout.buffer.write({line!r}); sys.stdout.flush()"


def test_progress_and_the_result_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b'{"event":"progress","done":1,"total":2}\n{"event":"progress","done":2,"total":2}\n'
    fake_worker(tmp_path, monkeypatch, saying(lines + encode_line(Checked([1, 2]))))
    recorder = Recorder()
    assert run_worker("check", recorder, TASK, Checked).tokens == [1, 2]
    assert (recorder.stages, recorder.finished) == ({"check": (2, 2)}, ["check"])


def test_an_error_of_the_worker_keeps_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_worker(tmp_path, monkeypatch, saying(encode_line(Failed("UsageError", "the text is too short"))))
    with pytest.raises(UsageError, match="the text is too short"):
        run_worker("check", Silent(), TASK, Checked)


@pytest.mark.parametrize("kind", ["Exception", "annotations", "_line", "OSError"])
def test_an_unknown_class_is_a_failure_of_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    fake_worker(tmp_path, monkeypatch, saying(encode_line(Failed(kind, "the reason"))))
    with pytest.raises(WorkerFailed, match="the reason"):
        run_worker("check", Silent(), TASK, Checked)


@pytest.mark.parametrize(
    "line",
    [
        b"ggml: out of memory\n",
        b"[]\n",
        b'{"event": "surprise"}\n',
        b'{"event": "checked"}\n',
        b'{"event": "checked", "tokens": ["x"]}\n',
        b'{"event": "checked", "tokens": [1], "more": 1}\n',
    ],
)
def test_what_is_no_message_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: bytes) -> None:
    fake_worker(tmp_path, monkeypatch, saying(line))
    with pytest.raises(WorkerFailed, match=r"check: llama\.cpp's process sent something unreadable"):
        run_worker("check", Silent(), TASK, Checked)


def test_the_result_of_another_task_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_worker(tmp_path, monkeypatch, saying(b'{"event": "sized", "sizes": []}\n'))
    with pytest.raises(WorkerFailed, match="the result of another task"):
        run_worker("check", Silent(), TASK, Checked)


def test_a_worker_that_dies_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import os, sys; print('the assertion', file=sys.stderr, flush=True); os.abort()"
    fake_worker(tmp_path, monkeypatch, script)
    with pytest.raises(WorkerFailed, match=r"check: .*killed by SIGABRT.*the assertion"):
        run_worker("check", Silent(), TASK, Checked)


def test_a_worker_that_cannot_be_started_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerFailed, match=r"check: the process for llama\.cpp cannot be started \(No such file"):
        run_worker("check", Silent(), TASK, Checked)


def test_what_a_worker_wrote_last_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_worker(tmp_path, monkeypatch, "import sys; sys.stderr.write('x' * 50_000_000 + chr(27)); sys.exit(3)")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConvertError, match="ended with code 3") as found:
        run_worker("check", Silent(), TASK, Checked)
    assert len(str(found.value)) <= 1001
    assert str(found.value).isprintable()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000


def test_a_worker_ends_with_its_parent() -> None:
    command = [sys.executable, "-m", "llama_convert.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as worker:
        assert worker.stdin is not None
        worker.stdin.write(encode_line(CheckTask("/dev/stdin", threads=1)))
        worker.stdin.close()
        assert worker.wait(20) is not None


def test_a_worker_refuses_a_task_that_it_does_not_know() -> None:
    command = [sys.executable, "-m", "llama_convert.worker"]
    done = subprocess.run(command, input=b'{"task": "format"}\n', capture_output=True, timeout=60, check=True)
    found = decode_event(done.stdout)
    assert isinstance(found, Failed)
    assert found.kind == "WorkerFailed"
    assert "format" in found.text


def test_a_path_that_is_not_utf_8_reaches_the_worker() -> None:
    task = CheckTask(os.fsdecode(b"/data/mod\xe8les/m.gguf"), threads=1)
    assert decode_task(encode_line(task)) == task


def test_tasks_are_lines_of_json() -> None:
    task = QuantizeTask("in.gguf", "out.gguf", 15, 2)
    line = encode_line(task)
    assert json.loads(line)["task"] == "quantize"
    assert decode_task(line) == task
