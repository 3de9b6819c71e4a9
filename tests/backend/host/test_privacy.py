"""Secrets stay in the process that needs them, and memory in the process that has it."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from llama_backend.client.http_client import Client
from llama_backend.client.launch import RuntimeFiles, ensure
from llama_backend.host.privacy import without_secrets
from llama_backend.wire.api import ChatMessage
from llama_backend.wire.status import BackendStatus
from llama_chat.backends.kubectl import Kubectl
from llama_chat.backends.targets import KeySource, KubeTarget
from llama_convert.errors import WorkerFailed
from llama_convert.worker.child_process import run_worker
from llama_convert.worker.messages import Checked, CheckTask
from tests.support.convert.recorder import Recorder
from tests.support.server.harness import fake_config, python_path

SECRETS = {
    "HF_TOKEN": "hf_secret",
    "HUGGING_FACE_HUB_TOKEN": "hf_secret",
    "LLAMA_CHAT_API_KEY": "secret",
    "OPENAI_API_KEY": "secret",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "GITHUB_TOKEN": "secret",
    "MY_OWN": "secret",
    "DATABASE_URL": "postgres://me:secret@host",
    "LD_SECRET": "secret",
}
NEEDED = {
    "LANG": "C.UTF-8",
    "CUDA_VISIBLE_DEVICES": "",
    "GGML_CUDA_ENABLE_UNIFIED_MEMORY": "1",
    "OMP_NUM_THREADS": "1",
    "LD_LIBRARY_PATH": "/nowhere",
    "XDG_CACHE_HOME": "/nowhere",
    "TZ": "UTC",
}


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BackendStatus]:
    """A backend on a fake engine, started by a process with secrets in its environment."""
    for name, value in (SECRETS | NEEDED | {"PYTHONPATH": python_path()}).items():
        monkeypatch.setenv(name, value)
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    address = ensure(RuntimeFiles(folder, tmp_path / "log"), fake_config(tmp_path, socket=None))

    async def asked() -> BackendStatus:
        async with Client(address) as client:
            await client.count([ChatMessage("user", "as soon as the model is loaded")])
            return await client.status()

    found = asyncio.run(asked())
    yield found
    for pid in (found.pid, found.engine_pid):
        with suppress(ProcessLookupError):
            os.kill(pid or 0, signal.SIGKILL)


def environment(pid: int | None) -> dict[str, str]:
    text = Path(f"/proc/{pid}/environ").read_text()
    return dict(line.split("=", 1) for line in text.split("\0") if line)


def core_limit(pid: int | None) -> tuple[int, int]:
    return resource.prlimit(pid or -1, resource.RLIMIT_CORE)


def test_a_backend_in_the_background_gets_no_secrets(served: BackendStatus) -> None:
    for pid in (served.pid, served.engine_pid):
        found = environment(pid)
        assert not SECRETS.keys() & found.keys()
        assert not any("secret" in value for value in found.values())
        assert found.items() >= NEEDED.items()
        assert found["PATH"] == os.environ["PATH"]


def test_server_and_engine_leave_no_core_dump_and_no_open_file(served: BackendStatus) -> None:
    for pid in (served.pid, served.engine_pid):
        assert max(core_limit(pid)) <= 1
        assert "Umask:\t0077" in Path(f"/proc/{pid}/status").read_text()


def test_a_process_with_our_limits_leaves_no_core_dump(tmp_path: Path) -> None:
    script = "import os; from llama_backend.host.privacy import keep_private; keep_private(); os.abort()"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"PYTHONPATH": python_path()})
    assert done.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


def test_the_engine_of_a_server_in_the_foreground_gets_no_secrets() -> None:
    assert without_secrets(SECRETS | NEEDED) == NEEDED


def test_the_worker_of_conversions_gets_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    seen = tmp_path / "seen"
    (tmp_path / "python").write_text(f"#!/bin/sh\nenv > {seen}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises((WorkerFailed, BrokenPipeError)):
        run_worker("quantise", Recorder(), CheckTask("model.gguf", threads=1), Checked)
    kept = {line.split("=")[0] for line in seen.read_text().splitlines()}
    assert kept >= {"PATH", "HOME"}
    assert not kept & {name for name in SECRETS if name not in ("MY_OWN", "DATABASE_URL")}


async def test_kubectl_gets_what_clouds_need_and_none_of_our_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (SECRETS | {"KUBECONFIG": "/nowhere"}).items():
        monkeypatch.setenv(name, value)
    program = tmp_path / "kubectl"
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    target = KubeTarget("default", "chat", "name", key=KeySource(variable="MY_OWN"))
    found = json.loads(await Kubectl(target).ask("version"))
    assert found["KUBECONFIG"] == "/nowhere"
    assert found["AWS_SECRET_ACCESS_KEY"] == "secret"
    assert not found.keys() & {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "LLAMA_CHAT_API_KEY", "MY_OWN"}
