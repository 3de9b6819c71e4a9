"""The clipboard of the machine where the person sits."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence

_PATIENCE_SECONDS = 2.0


def native_command() -> Sequence[str] | None:
    """The command that takes text into the clipboard here, or None where only the terminal can do that.

    Over SSH the terminal is on another machine. Inside tmux, tmux hands the text on to that terminal: it drops the
    control sequence of programs unless it is set up otherwise.
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
    """Hands `text` to `command`; whether it took it."""
    quiet = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=quiet, stderr=quiet
        )
        await asyncio.wait_for(process.communicate(text.encode()), _PATIENCE_SECONDS)
    except (OSError, TimeoutError):
        return False
    return process.returncode == 0
