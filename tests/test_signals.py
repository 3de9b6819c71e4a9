"""The tests themselves: those of Ctrl+C hold where the tests run in a shell's background."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path


def test_what_a_test_starts_can_be_interrupted() -> None:
    script = "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_that_also_holds_in_the_background_of_a_shell() -> None:
    name = f"{Path(__file__)}::{test_what_a_test_starts_can_be_interrupted.__name__}"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert done.returncode == 0, done.stdout
