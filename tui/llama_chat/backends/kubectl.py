"""`kubectl` as a child process: short commands, and port-forwards that end with this process."""

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

_COMMAND_SECONDS = 30.0
_POD_SECONDS = 10
"""How long one port-forward waits for a running pod."""
_START_SECONDS = 30.0
_OUR_PREFIXES = ("LLAMA_CHAT_", "HF_", "HUGGING")
"""Prefixes of environment variables that may hold secrets of ours; kubectl does not get them."""
_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")
_PERMANENT = (
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
"""Parts of messages about errors that another attempt would not change."""


class Kubectl:
    """Runs `kubectl` for one target, with the person's own kubeconfig.

    kubectl gets the whole environment, since plugins that log in to a cloud need it, except for our own secrets.
    """

    def __init__(self, target: KubeTarget) -> None:
        context = ["--context", target.context] if target.context else []
        self._key_variable = target.key.variable
        self._base = ["kubectl", *context, "--namespace", target.namespace]

    async def ask(self, *arguments: str) -> bytes:
        """The output of a short command; raises KubeError, or Unreachable where another attempt may help."""
        process = await self._start(*arguments)
        try:
            out, err = await asyncio.wait_for(process.communicate(), _COMMAND_SECONDS)
        except TimeoutError:
            raise Unreachable("kubectl got no answer from the cluster in time") from None
        finally:
            await end(process)
        if process.returncode != 0:
            raise failure(err.decode("utf-8", "replace"))
        return out

    async def forward(self, service: str, port: int) -> PortForward:
        """Opens a local port that leads to a Service; raises KubeError, PodPending or Unreachable."""
        wait = f"--pod-running-timeout={_POD_SECONDS}s"
        process = await self._start("port-forward", "--address", "127.0.0.1", wait, f"service/{service}", f":{port}")
        opened = PortForward(process)
        try:
            await asyncio.wait_for(opened.ready(), _START_SECONDS)
        except TimeoutError:
            await opened.aclose()
            raise PodPending("no pod accepts connections yet") from None
        except BaseException:
            await opened.aclose()
            raise
        return opened

    async def _start(self, *arguments: str) -> Process:
        command = [*_ending_with_parent(), *self._base, *arguments]
        if shutil.which("kubectl") is None:
            raise KubeError("kubectl is not on PATH; targets that begin with kube:// need it")
        try:
            return await asyncio.create_subprocess_exec(
                *command, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, env=self._environment()
            )
        except OSError as error:
            raise KubeError(f"kubectl cannot be run: {error.strerror or error}") from error

    def _environment(self) -> dict[str, str]:
        """The environment without our secrets."""
        ours = [name for name in os.environ if name == self._key_variable or name.startswith(_OUR_PREFIXES)]
        return {name: value for name, value in os.environ.items() if name not in ours}


class PortForward:
    """A running `kubectl port-forward`; `port` is the local one."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._last_line = ""
        self._reading: list[asyncio.Task[None]] = []
        self.port = 0

    async def ready(self) -> None:
        """Returns once the port accepts connections; raises the error that kubectl reports."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        errors = asyncio.create_task(self._read(self._process.stderr))
        self._reading.append(errors)
        async for line in self._process.stdout:
            if match := _FORWARDING.match(line.decode("utf-8", "replace")):
                self.port = int(match[1])
                self._reading.append(asyncio.create_task(self._read(self._process.stdout)))
                return
        await errors
        raise failure(self._last_line)

    async def aclose(self) -> None:
        for task in self._reading:
            task.cancel()
        await end(self._process)

    async def _read(self, lines: asyncio.StreamReader) -> None:
        """Reads the output, so that kubectl never blocks on a full pipe; keeps the last line."""
        async for line in lines:
            self._last_line = line.decode("utf-8", "replace")


async def end(process: Process) -> None:
    """Kills a process that still runs."""
    if process.returncode is None:
        process.kill()
    await process.wait()


def failure(message: str) -> KubeError | Unreachable:
    """The error for a message of kubectl: a permanent one, a pod that is not running yet, or no connection."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    text = lines[-1].removeprefix("error: ").removeprefix("Error from server ") if lines else "ended without a message"
    lower = text.lower()
    if any(word in lower for word in _PERMANENT):
        return KubeError(f"kubectl: {text}")
    if "pod" in lower or "timed out waiting for the condition" in lower:
        return PodPending(text)
    return Unreachable(f"kubectl: {text}")


def _ending_with_parent() -> list[str]:
    """A prefix that ends the command with this process, even if that is killed: no port stays open. Linux only."""
    found = shutil.which("setpriv") if sys.platform == "linux" else None
    return [found, "--pdeathsig", "TERM", "--"] if found else []
