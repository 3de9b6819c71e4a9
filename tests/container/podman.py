"""The image in podman, held to the restricted profile."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import httpx2
import openai
import pytest

IMAGE = os.environ.get("TEST_IMAGE")
KEY = "k3y-of-the-test"
USER = 10001

needs_image = pytest.mark.skipif(IMAGE is None, reason="TEST_IMAGE names no image (make test-image)")


def podman(*args: str | Path, check: bool = True, seconds: float = 120.0) -> str:
    """What podman writes; with `check`, it has to succeed."""
    done = subprocess.run(["podman", *args], capture_output=True, text=True, check=False, timeout=seconds)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return (done.stdout + done.stderr).strip()


def restricted() -> list[str]:
    """Kubernetes' restricted profile with a read-only root, as options of `podman run`.

    podman's default seccomp profile is what RuntimeDefault means there.
    """
    options = ["--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges"]
    options += ["--tmpfs=/tmp:rw,size=128m,mode=1777", "--tmpfs=/var/cache/llama-chat:rw,size=1g,mode=1777"]
    return [f"--user={USER}:{USER}", *options]


def folder_of_user(folder: Path) -> Path:
    """A new folder that the image's user owns."""
    folder.mkdir(parents=True)
    os.chown(folder, USER, USER)
    return folder


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def openai_client(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)


class Backend:
    """A container that serves `models` on a port of this machine, with a key and further `settings`."""

    def __init__(self, folder: Path, models: Path, **settings: str) -> None:
        self.history = folder_of_user(folder / "history")
        keys = folder / "keys"
        keys.mkdir()
        keys.joinpath("keys").write_text(f"{KEY}\n")
        self.port = free_port()
        mounts = {models: "/models:ro", self.history: "/var/lib/llama-chat", keys: "/etc/llama-chat/keys:ro"}
        options = [f"--volume={source}:{target}" for source, target in mounts.items()]
        options += ["--env=LLAMA_CHAT_HOST=0.0.0.0", "--env=LLAMA_CHAT_API_KEY_FILE=/etc/llama-chat/keys/keys"]
        options += [f"--env=LLAMA_CHAT_{name.upper()}={value}" for name, value in settings.items()]
        options += ["--env=LLAMA_CHAT_DRAIN=60", f"--publish=127.0.0.1:{self.port}:8080"]
        self.name = podman("run", "--detach", *restricted(), *options, IMAGE or "", "serve").splitlines()[-1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return podman("logs", self.name)

    def wait_ready(self, seconds: float = 90.0) -> None:
        """Returns once requests are taken."""
        wait_for(f"{self.url}/readyz", seconds, lambda: self.log)

    def run(self, *command: str) -> str:
        """What a command in the container writes."""
        return podman("exec", self.name, *command)

    def remove(self) -> None:
        podman("rm", "--force", "--time=0", "--volumes", self.name)


def wait_for(url: str, seconds: float, log: object = str) -> None:
    """Returns once `url` answers 200; `log` tells what went wrong otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if httpx2.get(url, timeout=5).status_code == 200:
                return
        except httpx2.HTTPError:
            pass
        assert time.monotonic() < deadline, log() if callable(log) else log
        time.sleep(0.2)
