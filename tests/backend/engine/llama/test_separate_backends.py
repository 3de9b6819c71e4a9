"""Builds whose backends are libraries of their own, as in the container image."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from llama_backend.engine.llama.binding import LIBRARY, load_backends


class FakeLibrary:
    """The two functions of libggml, with so many backends built in."""

    def __init__(self, built_in: int) -> None:
        self.loaded: list[bytes] = []
        self.ggml_backend_reg_count = lambda: built_in
        self.ggml_backend_load_all_from_path = self.loaded.append


@pytest.mark.parametrize(("built_in", "loaded"), [(0, [b"/lib/llama"]), (1, [])])
def test_backends_are_loaded_where_none_is_built_in(built_in: int, loaded: list[bytes]) -> None:
    library: Any = FakeLibrary(built_in)
    load_backends(library, Path("/lib/llama"))
    assert library.loaded == loaded


def test_the_installed_library_has_a_backend() -> None:
    assert ctypes.CDLL(str(LIBRARY)).ggml_backend_reg_count() > 0
