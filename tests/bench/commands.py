"""Whole commands, timed from their start as a person sees them. All times are medians, in seconds."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

_RUNS = 5
LLAMA_CHAT = [str(Path(sys.executable).with_name("llama-chat"))]
_SHORT = "Say hi."
_THREADS = 2
_PROMPT_MARKER = b"rite a message"
"""Of the box to write in; the cursor stands on the first letter."""


def ask_warm() -> float:
    """`llama-chat ask` with a running backend: from start to the first byte of the answer."""
    subprocess.run([*LLAMA_CHAT, "ask", "-n", _SHORT], check=True, stdout=subprocess.DEVNULL)
    return statistics.median(_first_byte([*LLAMA_CHAT, "ask", "-n", _SHORT]) for _ in range(_RUNS))


def ask_cold() -> float:
    """`llama-chat ask` without a backend: from start to the end of an answer of ten tokens."""
    command = [*LLAMA_CHAT, "ask", "-n", "--max-tokens", "10", _SHORT]
    return statistics.median(_after_stop(command) for _ in range(_RUNS))


def llama_cli(folder: Path, model: Path, threads: int) -> float:
    """llama.cpp's own one-shot program: from start to the end of an answer of ten tokens."""
    options = ["-m", str(model), "-t", str(threads), "-n", "10", "-c", "4096", "-st", "--simple-io"]
    command = [str(folder / "llama-cli"), *options, "-p", _SHORT]
    return statistics.median(_whole(command) for _ in range(_RUNS))


def llm() -> float | None:
    """`llm` with the same model in its own process: from start to the first byte; None without `llm`."""
    program = Path(sys.executable).with_name("llm")
    if not program.exists():
        return None
    return statistics.median(_first_byte([str(program), "-n", "-m", "SmolLM2", _SHORT]) for _ in range(_RUNS))


def first_paint(marker: bytes) -> float:
    """`llama-chat` in a terminal of 100×30: from start until `marker` is drawn."""
    return statistics.median(_paint(LLAMA_CHAT, marker) for _ in range(_RUNS))


def stop() -> None:
    subprocess.run([*LLAMA_CHAT, "stop"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _after_stop(command: list[str]) -> float:
    stop()
    return _whole(command)


def _whole(command: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return time.perf_counter() - begin


def _first_byte(command: list[str]) -> float:
    begin = time.perf_counter()
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        elapsed = time.perf_counter() - begin
        process.stdout.read()
    return elapsed


def _paint(command: list[str], marker: bytes) -> float:
    begin = time.perf_counter()
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ |= {"TERM": "xterm-256color"}
        os.execv(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    try:
        _read_until(terminal, marker)
        return time.perf_counter() - begin
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(terminal)


def _read_until(terminal: int, marker: bytes, seconds: float = 10.0) -> None:
    seen, end = b"", time.perf_counter() + seconds
    while marker not in seen:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.perf_counter()))
        if not ready:
            raise TimeoutError(f"{marker!r} was not drawn")
        seen += os.read(terminal, 65536)


def rows(model: Path, reference: Path | None) -> Iterator[str]:
    """How long commands take, from their start on."""
    try:
        yield f"ask, warm: start to first byte {ask_warm():.2f} s"
        yield f"ask, cold: start to end of 10 tokens {ask_cold():.2f} s"
        if reference is not None:
            yield f"llama-cli: start to end of 10 tokens {llama_cli(reference, model, _THREADS):.2f} s"
        if (other := llm()) is not None:
            yield f"llm: start to first byte {other:.2f} s"
        yield f"TUI: start to first paint {first_paint(_PROMPT_MARKER):.2f} s"
    finally:
        stop()
