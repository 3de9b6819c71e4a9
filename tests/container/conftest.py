"""A folder for kustomizations that no overlay is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.container.manifests import TREE


@pytest.fixture
def scratch() -> Iterator[Path]:
    """An empty folder inside the tree, which is as far as kustomize reads."""
    with TemporaryDirectory(dir=TREE, prefix=".") as folder:
        yield Path(folder)
