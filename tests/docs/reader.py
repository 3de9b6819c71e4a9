"""A reader who types what a document says, from its beginning to its end."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.docs.documents import Block, Document, Mark
from tests.docs.shell import Command, commands
from tests.support.terminal import Terminal

_PORT = "8080"
"""What documents write; another is free where the tests run."""
_SECONDS = 90.0
_READY = b"engine: ready"
_CTRL_Q = b"\x11"


class Reader:
    """Runs the blocks of one document, one after the other, in one folder and home and on one backend.

    Shell variables and the working directory last from one block to the next, as in a terminal that stays open.
    """

    def __init__(self, document: Document, folder: Path) -> None:
        self._document = document
        self._state = folder / "shell"
        self._log = folder / "serve.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._port = str(_free_port())
        self._state.write_text(f"cd {shlex.quote(str(_made(folder / 'work')))}\n")

    def read(self, block: Block) -> None:
        """Does what the block says; fails where a command does not end as announced."""
        found = list(commands(block.commands_text.replace(_PORT, self._port)))
        if block.mark is Mark.CHAT:
            for command in found:
                self._chat(block, command)
        elif block.mark is Mark.SERVER:
            self._run(block, found[:-1])
            self._serve(block, found[-1])
        elif block.mark is Mark.NONE:
            self._run(block, found)

    def close(self) -> None:
        """Ends the server and the backend in the background, whatever the document did."""
        self._end_server()
        subprocess.run(["llama-chat", "stop"], capture_output=True, timeout=_SECONDS)

    def _run(self, block: Block, found: list[Command]) -> None:
        if not found:
            return
        checked = [f"{_limit(each)}\n{each.text}\n__expect $? {each.exit_code} {each.line}" for each in found]
        script = "\n".join([self._prelude(), *checked, f"{{ declare -px; echo cd $(pwd); }} > {self._state}"])
        done = subprocess.run(["bash", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS)
        if done.returncode:
            self._fail(block, done.stdout + done.stderr)

    def _prelude(self) -> str:
        """Every variable is exported, so that the next block has it."""
        stop = 'echo "line $3 of the block ended with $1, not $2" >&2; exit 99'
        return f"source {self._state}\nset -a\n__expect() {{ [ $1 = $2 ] || {{ {stop}; }}; }}"

    def _chat(self, block: Block, command: Command) -> None:
        terminal = Terminal("bash", "-c", f"{self._prelude()}\n{command.text}")
        try:
            terminal.read_until(b"rite a message", _SECONDS)
            terminal.write(_CTRL_Q)
            if code := terminal.end(_SECONDS):
                self._fail(block, f"{command.text} ended with {code}".encode())
        finally:
            terminal.close()

    def _serve(self, block: Block, command: Command) -> None:
        """Starts the server and waits until it answers; the one before has been interrupted by then."""
        self._end_server()
        with self._log.open("wb") as log:
            script = ["bash", "-c", f"{self._prelude()}\nexec {command.text}"]
            self._server = subprocess.Popen(script, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + _SECONDS
        while _READY not in self._log.read_bytes():
            if self._server.poll() is not None or time.monotonic() > end:
                self._fail(block, self._log.read_bytes())
            time.sleep(0.05)

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(_SECONDS)
            self._server = None

    def _fail(self, block: Block, output: bytes) -> None:
        where = f"{self._document.name}:{block.line}"
        pytest.fail(f"{where}\n{block.text}\n{output.decode('utf-8', 'replace')}", pytrace=False)


def live_in(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a reader whose home is `home`.

    Answers are the same each time, which a reader has no need for.
    """
    for name in [name for name in os.environ if name.startswith(("XDG_", "LLAMA_CHAT_", "HF_"))]:
        monkeypatch.delenv(name)
    variables = {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(_made(home / "run")),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "LLAMA_CHAT_TEMPERATURE": "0",
        "LLAMA_CHAT_IDLE_EXIT": "120",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def _limit(command: Command) -> str:
    """Answers are short, except those that have to be whole JSON."""
    return f"LLAMA_CHAT_MAX_TOKENS={64 if '--schema' in command.text else 12}"


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700)
    return folder


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
