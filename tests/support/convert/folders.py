"""What is in a folder."""

from __future__ import annotations

from pathlib import Path


def file_names(folder: Path) -> list[str]:
    """The files below `folder`, by their paths in it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
