"""What an engine noted survives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from llama_backend.crash_notes import CrashNotes, CrashPage, Suspects
from tests.support.server.harness import python_path

HANG = """
import sys
from llama_backend import crash_notes
crash_notes.GRAMMAR_SECONDS = 0.2
found = crash_notes.CrashNotes(int(sys.argv[1]))
found.batch([3, 4])
with found.grammar(4):
    while True: pass
"""


@pytest.fixture
def page() -> CrashPage:
    return CrashPage()


@pytest.fixture
def notes(page: CrashPage) -> CrashNotes:
    with page as file:
        return CrashNotes(file)


def test_nobody_is_suspect_before_anything_was_noted(page: CrashPage) -> None:
    with page:
        assert page.suspects() == Suspects()


def test_the_last_batch_is_suspect(page: CrashPage, notes: CrashNotes) -> None:
    notes.batch([7, 2**63, 9])
    assert page.suspects() == Suspects(0, frozenset({7, 2**63, 9}))
    notes.batch([8])
    assert page.suspects() == Suspects(0, frozenset({8}))
    notes.batch([])
    assert page.suspects() == Suspects()


def test_a_grammar_is_suspect_while_it_works(page: CrashPage, notes: CrashNotes) -> None:
    notes.batch([7, 8])
    with notes.grammar(8):
        assert page.suspects() == Suspects(8, frozenset({7, 8}))
    assert page.suspects() == Suspects(0, frozenset({7, 8}))
    with pytest.raises(ValueError, match="x"), notes.grammar(7):
        raise ValueError("x")
    assert page.suspects().grammar == 0
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


def test_a_batch_of_more_than_a_page_is_cut(page: CrashPage, notes: CrashNotes) -> None:
    notes.batch(list(range(1, 5000)))
    assert page.suspects().batch == frozenset(range(1, 507))


def test_a_grammar_that_takes_too_long_ends_the_process(page: CrashPage) -> None:
    environment = os.environ | {"PYTHONPATH": python_path()}
    with page as file:
        command = [sys.executable, "-c", HANG, str(file)]
        process = subprocess.run(command, pass_fds=[file], env=environment, timeout=30, check=False)
    assert process.returncode == -signal.SIGVTALRM
    assert page.suspects() == Suspects(4, frozenset({3, 4}))


def test_without_a_file_the_notes_are_for_nobody() -> None:
    notes = CrashNotes()
    notes.batch([1])
    with notes.grammar(1):
        pass


CRASH = """
import sys, threading, os
from llama_backend.crash_notes import CrashNotes
notes = CrashNotes(int(sys.argv[1]))
notes.watch()
notes.batch([3, 4])
noted, over = threading.Barrier(3), threading.Event()
def read(place, number, dies):
    with notes.reading(place, number):
        noted.wait()
        os.abort() if dies else over.wait()
for place in (0, 1):
    threading.Thread(target=read, args=(place, 7 + place, sys.argv[2] == str(place)), daemon=True).start()
noted.wait()
if sys.argv[2] == "batch":
    os.abort()
os.kill(os.getpid(), 9) if sys.argv[2] == "unknown" else over.wait()
"""


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("0", Suspects(reading=frozenset({7}))),
        ("1", Suspects(reading=frozenset({8}))),
        ("batch", Suspects(batch=frozenset({3, 4}))),
        ("unknown", Suspects(batch=frozenset({3, 4}), reading=frozenset({7, 8}))),
    ],
)
def test_the_thread_in_which_a_process_ended_tells_who_it_was(page: CrashPage, where: str, expected: Suspects) -> None:
    environment = os.environ | {"PYTHONPATH": python_path()}
    with page as file:
        command = [sys.executable, "-c", CRASH, str(file), where]
        process = subprocess.run(command, pass_fds=[file], env=environment, timeout=30, check=False)
    assert process.returncode == (-signal.SIGKILL if where == "unknown" else -signal.SIGABRT)
    assert page.suspects() == expected


def test_what_was_read_is_no_suspect(page: CrashPage, notes: CrashNotes) -> None:
    with notes.reading(1, 7):
        assert page.suspects() == Suspects(reading=frozenset({7}))
    assert page.suspects() == Suspects()
