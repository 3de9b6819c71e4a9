"""The folder of KV states on disk: finds, measures and removes its files without reading them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ENDING = ".kvstate"
PART = ".part"
"""The ending of a file that is being written."""
_STAMP = re.compile(r"[0-9a-f]{32}")
"""The name of a folder with the states of one model and layout. Anything else below the root is left alone."""


def states_in(root: Path) -> tuple[int, int]:
    """How many states are below `root`, and their bytes."""
    found = [path for folder in folders(root) for path in files(folder)]
    return len(found), sum(map(size_of, found))


def clear_states(root: Path) -> int:
    """Removes all states below `root`; returns the bytes that were freed."""
    freed = 0
    for folder in list(folders(root)):
        for path in [*files(folder), *files(folder, PART)]:
            freed += size_of(path)
            path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()
    return freed


def make_private(folder: Path) -> None:
    """Makes a folder, and those above it that are missing, for this user alone whatever the umask. Raises OSError."""
    for path in (*reversed(folder.parents), folder):
        if not path.is_dir():
            path.mkdir(mode=0o700, exist_ok=True)


def folders(root: Path) -> Iterator[Path]:
    """The folders of states below `root`."""
    with suppress(OSError):
        yield from [path for path in root.iterdir() if _STAMP.fullmatch(path.name) and not path.is_symlink()]


def files(folder: Path, ending: str = ENDING) -> Iterator[Path]:
    """The states in a folder, or its other files with an ending."""
    with suppress(OSError):
        yield from [path for path in folder.iterdir() if path.suffix == ending]


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where it is gone."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_used(path: Path) -> float:
    """When a state was last written or loaded, in seconds of the system's clock; 0 where it is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
