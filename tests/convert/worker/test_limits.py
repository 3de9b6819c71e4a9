"""llama.cpp reads untrusted weights in a process with limits on its time and its memory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llama_convert.errors import ConvertError
from llama_convert.worker import limits
from llama_convert.worker.child_process import run_worker
from llama_convert.worker.messages import Checked, CheckTask
from tests.support.convert.recorder import Recorder

GIB = 1 << 30


def run(script: str) -> subprocess.CompletedProcess[str]:
    head = "import resource\nfrom pathlib import Path\nfrom llama_convert.worker.limits import limit, limit_to_file\n"
    return subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, timeout=60)


def test_processor_time_ends() -> None:
    assert run("limit(1, 1 << 33)\nwhile True: pass").returncode == -signal.SIGXCPU


def test_memory_ends() -> None:
    assert "MemoryError" in run("limit(60, 1 << 28)\nbytearray(1 << 29)").stderr


def test_larger_models_may_take_more() -> None:
    assert limits.limits_for(0) == (600, 8 * GIB)
    assert limits.limits_for(13 * GIB) == (600 + 13 * 120, 34 * GIB)


def test_a_check_is_held_to_it_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import llama_convert.worker.limits as limits\nlimits.limits_for = lambda size: (1, 1 << 33)\n"
        "import llama_convert.worker.llama as llama\n"
        "def hang(*args, **named):\n    while True: pass\n"
        "llama.Model = hang\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    task = CheckTask(str(tmp_path / "model.gguf"), threads=1)
    with pytest.raises(ConvertError, match="far more processor time"):
        run_worker("check", Recorder(), task, Checked)
