"""Commands that talk to the backend of this machine, where somebody else stands in for it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.scripted_server import ScriptedServer
from tests.support.server.harness import runs
from tests.tui.cli.conftest import run

STRANGER = 12345
COMMANDS = (["stop"], ["status"], ["cache", "clear"], ["ask", "a"], ["serve"])

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


def test_stop_ends_no_process_that_an_answer_names(
    local_backend: ScriptedServer, victim: subprocess.Popen[bytes]
) -> None:
    local_backend.pid = victim.pid
    outcome = run("stop")
    assert (outcome.code, outcome.out) == (3, b"")
    assert f"process {os.getpid()} listens there, and {victim.pid} answers; neither is ended" in outcome.err
    assert runs(victim.pid)


@needs_root
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_talks_to_what_is_in_the_folder_of_another_user(
    arguments: list[str], local_backend: ScriptedServer, victim: subprocess.Popen[bytes], demo_model: Path
) -> None:
    local_backend.pid = victim.pid
    assert local_backend.path is not None
    folder = local_backend.path.parent
    os.chown(folder, STRANGER, STRANGER)
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (3, b"")
    assert f"{folder} is not a folder of this user: it belongs to user {STRANGER}; set LLAMA_CHAT" in outcome.err
    assert (local_backend.requests, local_backend.cleared) == ([], 0)
    assert runs(victim.pid)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_no_command_talks_to_what_is_in_a_folder_that_others_may_enter(
    arguments: list[str], local_backend: ScriptedServer, demo_model: Path
) -> None:
    assert local_backend.path is not None
    local_backend.path.parent.chmod(0o777)
    outcome = run(*arguments)
    assert (outcome.code, outcome.out) == (3, b"")
    assert "other users may enter" in outcome.err
    assert (local_backend.requests, local_backend.cleared) == ([], 0)
