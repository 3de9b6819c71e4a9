"""What an engine noted survives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from llama_backend.guard import Guard, GuardPage, Suspects
from tests.server.harness import python_path

HANG = """
import sys
from llama_backend import guard
guard._GRAMMAR_SECONDS = 0.2
found = guard.Guard(int(sys.argv[1]))
found.batch([3, 4])
with found.grammar(4):
    while True: pass
"""


@pytest.fixture
def page() -> GuardPage:
    return GuardPage()


@pytest.fixture
def guard(page: GuardPage) -> Guard:
    with page as file:
        return Guard(file)


def test_nobody_is_suspect_before_anything_was_noted(page: GuardPage) -> None:
    with page:
        assert page.suspects() == Suspects()


def test_the_last_batch_is_suspect(page: GuardPage, guard: Guard) -> None:
    guard.batch([7, 2**63, 9])
    assert page.suspects() == Suspects(0, frozenset({7, 2**63, 9}))
    guard.batch([8])
    assert page.suspects() == Suspects(0, frozenset({8}))
    guard.batch([])
    assert page.suspects() == Suspects()


def test_a_grammar_is_suspect_while_it_works(page: GuardPage, guard: Guard) -> None:
    guard.batch([7, 8])
    with guard.grammar(8):
        assert page.suspects() == Suspects(8, frozenset({7, 8}))
    assert page.suspects() == Suspects(0, frozenset({7, 8}))
    with pytest.raises(ValueError, match="x"), guard.grammar(7):
        raise ValueError("x")
    assert page.suspects().grammar == 0
    assert signal.getitimer(signal.ITIMER_VIRTUAL)[0] == 0


def test_a_batch_of_more_than_a_page_is_cut(page: GuardPage, guard: Guard) -> None:
    guard.batch(list(range(1, 5000)))
    assert page.suspects().batch == frozenset(range(1, 511))


def test_a_grammar_that_takes_too_long_ends_the_process(page: GuardPage) -> None:
    environment = os.environ | {"PYTHONPATH": python_path()}
    with page as file:
        command = [sys.executable, "-c", HANG, str(file)]
        process = subprocess.run(command, pass_fds=[file], env=environment, timeout=30, check=False)
    assert process.returncode == -signal.SIGVTALRM
    assert page.suspects() == Suspects(4, frozenset({3, 4}))


def test_without_a_file_the_notes_are_for_nobody() -> None:
    guard = Guard()
    guard.batch([1])
    with guard.grammar(1):
        pass
