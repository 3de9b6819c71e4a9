"""The folder with KV states on disk, as far as one need not know what is in a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ENDING = ".kvstate"
PART = ".part"
"""The ending of a file that is being written."""
_STAMP = re.compile(r"[0-9a-f]{32}")
"""The name of a folder with states of one model and layout; nothing else below the root is ours."""


def states_in(root: Path) -> tuple[int, int]:
    """How many states there are below `root`, and their bytes."""
    found = [path for folder in folders(root) for path in files(folder)]
    return len(found), sum(map(size_of, found))


def clear_states(root: Path) -> int:
    """Removes every state below `root`; returns how many bytes those were."""
    freed = 0
    for folder in list(folders(root)):
        for path in [*files(folder), *files(folder, PART)]:
            freed += size_of(path)
            path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
    return freed


def make_private(folder: Path) -> None:
    """Makes a folder and those above it that are missing, for this user alone under any umask; raises OSError."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)


def folders(root: Path) -> Iterator[Path]:
    with suppress(OSError):
        yield from [path for path in root.iterdir() if _STAMP.fullmatch(path.name) and not path.is_symlink()]


def files(folder: Path, ending: str = ENDING) -> Iterator[Path]:
    with suppress(OSError):
        yield from [path for path in folder.iterdir() if path.suffix == ending]


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
