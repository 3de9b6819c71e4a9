"""`kubectl` as a child process: short questions, and port-forwards that end with this process."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process

from llama_backend.errors import PodPending, Unreachable
from llama_chat.backends.targets import KubeTarget
from llama_chat.errors import KubeError

_QUESTION_SECONDS = 30.0
_POD_SECONDS = 10
"""How long one port-forward waits for a running pod."""
_START_SECONDS = 30.0
_OURS = ("LLAMA_CHAT_", "HF_", "HUGGING")
"""How variables begin with keys that are not the cluster's business."""
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_FINAL = (
    "notfound",
    "not found",
    "forbidden",
    "unauthorized",
    "provide credentials",
    "does not exist",
    "does not have a service port",
    "no such file",
    "executable",
)
"""In messages that would be the same a second later."""


class Kubectl:
    """Runs `kubectl` for one target, with the person's own kubeconfig.

    It keeps the environment, in which programs that log in to clouds find what they need, but for our own secrets.
    """

    def __init__(self, target: KubeTarget) -> None:
        context = ["--context", target.context] if target.context else []
        self._key_variable = target.key.variable
        self._base = ["kubectl", *context, "--namespace", target.namespace]

    async def ask(self, *arguments: str) -> bytes:
        """What a short command writes; raises KubeError, or Unreachable for what may pass."""
        process = await self._start(*arguments)
        try:
            out, err = await asyncio.wait_for(process.communicate(), _QUESTION_SECONDS)
        except TimeoutError:
            raise Unreachable("kubectl does not get an answer from the cluster") from None
        finally:
            await end(process)
        if process.returncode != 0:
            raise failure(err.decode("utf-8", "replace"))
        return out

    async def forward(self, service: str, port: int) -> PortForward:
        """A local port that leads to a Service; raises KubeError, PodPending or Unreachable."""
        wait = f"--pod-running-timeout={_POD_SECONDS}s"
        place = ("--address", "127.0.0.1", wait, f"service/{service}", f":{port}")
        process = await self._start("port-forward", *place)
        opened = PortForward(process)
        try:
            await asyncio.wait_for(opened.ready(), _START_SECONDS)
        except TimeoutError:
            await opened.aclose()
            raise PodPending("no pod answers yet") from None
        except BaseException:
            await opened.aclose()
            raise
        return opened

    async def _start(self, *arguments: str) -> Process:
        ours = [name for name in os.environ if name == self._key_variable or name.startswith(_OURS)]
        environment = {name: value for name, value in os.environ.items() if name not in ours}
        command = [*_ending_with_parent(), *self._base, *arguments]
        if shutil.which("kubectl") is None:
            raise KubeError("kubectl is not on PATH; kube:// needs it")
        try:
            return await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=environment
            )
        except OSError as error:
            raise KubeError(f"kubectl cannot be run: {error.strerror or error}") from error


class PortForward:
    """A running `kubectl port-forward`; `port` is the local one."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._last_line = ""
        self._reading: list[asyncio.Task[None]] = []
        self.port = 0

    async def ready(self) -> None:
        """Returns once connections are taken; raises what kubectl complains about."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        complaints = asyncio.create_task(self._read(self._process.stderr))
        self._reading.append(complaints)
        async for line in self._process.stdout:
            if match := _FORWARDING.match(line.decode("utf-8", "replace")):
                self.port = int(match[1])
                self._reading.append(asyncio.create_task(self._read(self._process.stdout)))
                return
        await complaints
        raise failure(self._last_line)

    async def aclose(self) -> None:
        for task in self._reading:
            task.cancel()
        await end(self._process)

    async def _read(self, lines: asyncio.StreamReader) -> None:
        """Takes what kubectl says, so that it never waits for a reader; keeps the last line."""
        async for line in lines:
            self._last_line = line.decode("utf-8", "replace")


async def end(process: Process) -> None:
    """Ends a process that still runs."""
    if process.returncode is None:
        process.kill()
    await process.wait()


def failure(complaint: str) -> KubeError | Unreachable:
    """What kubectl's complaint means: one that stays, a pod that is not there yet, or a cluster out of reach."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    text = lines[-1].removeprefix("error: ").removeprefix("Error from server ") if lines else "it ended"
    lower = text.lower()
    if any(word in lower for word in _FINAL):
        return KubeError(f"kubectl: {text}")
    if "pod" in lower or "timed out waiting for the condition" in lower:
        return PodPending(text)
    return Unreachable(f"kubectl: {text}")


def _ending_with_parent() -> list[str]:
    """On Linux a prefix that has a command end with this process in whatever way: no open port is left behind."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    return [found, "--pdeathsig", "TERM", "--"] if found else []
