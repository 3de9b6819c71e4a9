"""Where a conversion keeps its unquantised file until the products are made, so that a later run can reuse it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from llama_convert.files import explained, lock

FOLDER = ".convert"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder of one conversion; `original` is the unquantised file, which is there only when it is complete."""

    folder: Path

    @property
    def original(self) -> Path:
        return self.folder / "original.gguf"


def workspace_folder(out: Path, name: str, fingerprint: str) -> Path:
    """Where the workspace of these inputs is, whether it exists or not."""
    return out / FOLDER / f"{name}.{fingerprint[:16]}"


@contextmanager
def open_workspace(out: Path, name: str, fingerprint: str) -> Iterator[Workspace]:
    """The workspace below `out` for a model `name` made from inputs with this fingerprint.

    It is kept when the block fails or the process is killed, and removed when the block succeeds. A workspace of the
    same name that was made from other inputs is removed first.

    Raises ConvertError where another process is converting the same model to the same folder.
    """
    parent = out / FOLDER
    with explained(parent):
        parent.mkdir(exist_ok=True)
        with (parent / f"{name}.lock").open("w") as opened:
            lock(opened.fileno(), f"{name} is being converted to this folder by another process")
            folder = workspace_folder(out, name, fingerprint)
            for stale in parent.iterdir():
                if stale.is_dir() and stale.name.rpartition(".")[0] == name and stale != folder:
                    shutil.rmtree(stale)
            folder.mkdir(exist_ok=True)
            yield Workspace(folder)
            shutil.rmtree(folder)
            (parent / f"{name}.lock").unlink()
        if not any(parent.iterdir()):
            parent.rmdir()
