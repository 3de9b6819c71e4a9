from __future__ import annotations

from pathlib import Path

import pytest

from llama_chat.ui.clipboard import copy_natively, native_command
from tests.support.ui.driver import running


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with programs; those in it write what they are given into `copied`, but for `wl-copy`."""
    for name in ("tmux", "xclip", "xsel", "pbcopy", "wl-copy"):
        program = tmp_path / name
        work = "exit 1" if name == "wl-copy" else f"exec /bin/cat > {tmp_path}/copied"
        program.write_text(f"#!/bin/sh\n{work}\n")
        program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "variables", "program"),
    [
        ("linux", {}, None),
        ("linux", {"DISPLAY": ":0"}, "xclip"),
        ("linux", {"DISPLAY": ":0", "WAYLAND_DISPLAY": "wayland-0"}, "wl-copy"),
        ("linux", {"TMUX": "/tmp/tmux", "SSH_CONNECTION": "x", "DISPLAY": ":0"}, "tmux"),
        ("linux", {"SSH_CONNECTION": "x", "DISPLAY": ":0"}, None),
        ("darwin", {}, "pbcopy"),
        ("darwin", {"SSH_CONNECTION": "x"}, None),
    ],
)
def test_the_program_follows_from_where_one_is(
    platform: str, variables: dict[str, str], program: str | None, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    command = native_command()
    assert (command[0] if command else None) == program


def test_a_program_that_is_missing_is_passed_over(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":0")
    (programs / "xclip").unlink()
    command = native_command()
    assert command
    assert command[0] == "xsel"


async def test_text_goes_to_the_program(programs: Path) -> None:
    assert await copy_natively("naïve 漢字\n", ["xclip"])
    assert (programs / "copied").read_text() == "naïve 漢字\n"


@pytest.mark.parametrize("program", ["wl-copy", "nosuch"])
async def test_a_program_that_fails_is_told_from_one_that_does_not(program: str, programs: Path) -> None:
    assert not await copy_natively("text", [program])


async def test_a_failed_copy_is_told(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    async with running() as chat:
        chat.prompt.put("draft")
        await chat.press("shift+home", "ctrl+c")
        await chat.until(lambda: "wl-copy could not copy the text" in chat.line)
