"""The image as a pod would run it: restricted, asked over its port, chatted with inside, and ended in mid-answer."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import openai
import pytest

from llama_chat.history import History
from tests.container.podman import IMAGE, KEY, USER, Backend, needs_image, openai_client, podman, wait_for
from tests.support.terminal import Terminal

pytestmark = [needs_image, pytest.mark.timeout(300)]

MODEL = "SmolLM2-135M-Instruct.Q4_1"
MOST_OF_A_TUI = 90
"""MB of resident memory of a TUI in the pod."""
PROCESSES = """
import json, os, re
found = []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        command = open(f"/proc/{pid}/cmdline").read().split("\\0")[:-1]
        memory = re.search(r"VmRSS:\\s+(\\d+)", open(f"/proc/{pid}/status").read())
        maps = open(f"/proc/{pid}/maps").read()
    except OSError:
        continue
    found.append({"command": command, "kib": int(memory[1]) if memory else 0, "maps": maps})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[Backend]:
    """A backend with the demo model."""
    found = Backend(tmp_path_factory.mktemp("pod"), demo_model.parent)
    yield found
    found.remove()


@pytest.fixture
def ready(backend: Backend) -> Backend:
    backend.wait_ready()
    return backend


def test_it_runs_with_no_rights_at_all(ready: Backend) -> None:
    status = dict(line.split(":\t", 1) for line in ready.run("cat", "/proc/1/status").splitlines() if ":\t" in line)
    assert set(status["Uid"].split()) == {str(USER)}
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert "Read-only file system" in podman("exec", ready.name, "touch", "/usr/x", check=False)


def test_it_computes_with_the_library_for_this_processor(ready: Backend) -> None:
    loaded = re.search(r"loaded CPU backend from \S+/libggml-cpu-(\w+)\.so", ready.log)
    assert loaded, ready.log
    flags = set(Path("/proc/cpuinfo").read_text().split())
    assert (loaded[1] in ("x64", "sse42", "sandybridge", "ivybridge", "piledriver")) == ("avx2" not in flags)


def test_it_answers_on_its_port_whoever_has_the_key(ready: Backend) -> None:
    with openai_client(ready.url) as client:
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, temperature=0
        )
        assert answer.choices[0].message.content
        with pytest.raises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()
    assert KEY not in ready.log
    assert httpx2.get(f"{ready.url}/v1/models", timeout=10).status_code == 401


def test_the_tui_inside_is_light_and_on_the_same_backend(ready: Backend) -> None:
    terminal = Terminal("podman", "exec", "--interactive", "--tty", ready.name, "llama-chat")
    try:
        terminal.read_until(b"rite a message", 60)
        terminal.write(b"Say hello.\r")
        terminal.read_until(b"tok/s", 90)
        processes = json.loads(ready.run("/opt/llama-chat/bin/python", "-c", PROCESSES))
        (tui,) = [one for one in processes if one["command"][-1].endswith("bin/llama-chat")]
        engines = [one for one in processes if "llama_backend.engine" in one["command"]]
        terminal.write(b"\x04")
        assert terminal.end(20) == 0
    finally:
        terminal.close()
    assert len(engines) == 1
    assert "numpy" not in tui["maps"]
    assert "libllama" not in tui["maps"]
    print(f"TUI: {tui['kib'] / 1000:.0f} MB")
    assert tui["kib"] * 1024 <= MOST_OF_A_TUI * 1_000_000
    with closing(History(ready.history / "history.db")) as history:
        (conversation,) = history.conversations()
        assert [message.role for message in history.messages(conversation.id)] == ["user", "assistant"]


def test_an_answer_outlives_the_signal_to_end(tmp_path: Path, demo_model: Path) -> None:
    backend = Backend(tmp_path, demo_model.parent)
    try:
        backend.wait_ready()
        assert _answer_while_stopping(backend) == "length"
        assert podman("wait", backend.name) == "0"
        assert _status(backend) == 0
    finally:
        backend.remove()


def _answer_while_stopping(backend: Backend) -> str | None:
    """Ends the container when an answer has begun; returns the answer's finish reason."""
    stopping = threading.Thread(target=podman, args=("kill", "--signal=TERM", backend.name))
    reason = None
    with openai_client(backend.url) as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Count to one hundred."}],
            max_tokens=120,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for number, chunk in enumerate(stream):
            if number == 3:
                stopping.start()
            reason = chunk.choices[0].finish_reason or reason if chunk.choices else reason
    stopping.join()
    return reason


def _status(backend: Backend) -> int:
    """The status of a probe, or 0 where nobody listens."""
    try:
        return httpx2.get(f"{backend.url}/livez", timeout=5).status_code
    except httpx2.HTTPError:
        return 0


def test_a_gpu_that_is_asked_for_and_missing_is_no_slow_success(tmp_path: Path, demo_model: Path) -> None:
    backend = Backend(tmp_path, demo_model.parent, gpu_layers="-1")
    try:
        wait_for(f"{backend.url}/livez", 60, lambda: backend.log)
        with pytest.raises(AssertionError, match="GPU was asked for"):
            backend.wait_ready(10)
    finally:
        backend.remove()


def test_the_image_holds_no_weights_and_says_what_it_is() -> None:
    labels = json.loads(podman("image", "inspect", "--format", "{{json .Labels}}", IMAGE or ""))
    prefix = "org.opencontainers.image."
    assert {"title", "version", "revision", "source", "licenses"} <= {name.removeprefix(prefix) for name in labels}
    find = ["--user=0:0", "--entrypoint=find", IMAGE or "", "/", "-xdev", "-name", "*.gguf"]
    assert podman("run", "--rm", "--network=none", *find) == ""
