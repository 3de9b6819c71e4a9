"""The clipboard of the machine at which the person sits."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence

from textual.app import App

_PATIENCE_SECONDS = 2.0


async def copy(app: App[object], text: str) -> str | None:
    """Copies `text` through the terminal and, where there is one, through a program of this machine.

    Returns the name of the program where that failed.
    """
    app.copy_to_clipboard(text)
    command = native_command()
    return None if command is None or await copy_natively(text, command) else command[0]


def native_command() -> Sequence[str] | None:
    """The command that copies its input to the clipboard, or None where only the terminal can do that.

    Over SSH the clipboard belongs to another machine, which only the terminal reaches. Inside tmux the command is
    tmux's own: unless it is configured otherwise, tmux drops the control sequence with which programs copy.
    """
    candidates: list[tuple[bool, Sequence[str]]] = [
        ("TMUX" in os.environ, ("tmux", "load-buffer", "-w", "-")),
        ("SSH_CONNECTION" in os.environ, ()),
        (sys.platform == "darwin", ("pbcopy",)),
        ("WAYLAND_DISPLAY" in os.environ, ("wl-copy",)),
        ("DISPLAY" in os.environ, ("xclip", "-selection", "clipboard")),
        ("DISPLAY" in os.environ, ("xsel", "--clipboard", "--input")),
    ]
    for applies, command in candidates:
        if applies and not command:
            return None
        if applies and shutil.which(command[0]):
            return command
    return None


async def copy_natively(text: str, command: Sequence[str]) -> bool:
    """Gives `text` to `command`; returns whether that succeeded."""
    quiet = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=quiet, stderr=quiet
        )
        await asyncio.wait_for(process.communicate(text.encode()), _PATIENCE_SECONDS)
    except (OSError, TimeoutError):
        return False
    return process.returncode == 0
