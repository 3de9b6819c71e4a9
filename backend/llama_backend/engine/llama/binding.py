"""llama.cpp through llama-cpp-python's low-level API. Only this module loads llama_cpp.

The package's own `__init__` is not run, since it would load numpy, Jinja and all chat formats (0.2 s) and install a log
callback that writes to the terminal.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

_PACKAGE = "llama_cpp"


def _load() -> Any:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        raise ImportError("llama-cpp-python is not installed")
    sys.modules.setdefault(_PACKAGE, importlib.util.module_from_spec(spec))
    return import_module(f"{_PACKAGE}.{_PACKAGE}")


lib: Any = _load()
"""The functions and structures of llama.h, under their own names."""

LIBRARY = Path(lib._lib._name)
"""The file of the shared library."""


def load_backends(library: ctypes.CDLL, folder: Path) -> None:
    """Loads ggml's backends from `folder` where `library` was built without any (GGML_BACKEND_DL).

    There is one file for each generation of processors and for each kind of GPU, and ggml loads the best ones for this
    machine. Its functions are looked up through libllama, since a wheel may contain several copies of libggml, each
    with its own list of backends.
    """
    if library.ggml_backend_reg_count() == 0:
        library.ggml_backend_load_all_from_path(os.fsencode(folder))


load_backends(ctypes.CDLL(lib._lib._name), LIBRARY.parent)

_held = ctypes.PyDLL(lib._lib._name)


def quick(name: str) -> Callable[..., Any]:
    """A function of llama.h that keeps Python's lock, for calls that take less time than releasing the lock."""
    function = _held[name]
    original = getattr(lib._lib, name)
    function.argtypes, function.restype = original.argtypes, original.restype
    return function
