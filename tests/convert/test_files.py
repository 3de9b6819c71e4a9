"""A model is as readable as the folder that it is put into, whatever the umask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_convert.files import replacing


@pytest.mark.parametrize(("folder_mode", "file_mode"), [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600)])
def test_a_model_is_as_readable_as_its_folder(tmp_path: Path, folder_mode: int, file_mode: int) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    folder.chmod(folder_mode)
    before = os.umask(0o077)
    try:
        with replacing(folder / "model.gguf") as part:
            part.write_bytes(b"GGUF")
    finally:
        os.umask(before)
    assert (folder / "model.gguf").stat().st_mode & 0o777 == file_mode
